package idle

import (
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// CheckGap is the time between the two fresh looks before a target goes to zero.
	// A message on its way from a Redis list to a worker is in neither place for 2.4 ms
	// at the most, measured over loopback; a quarter of a second is well beyond it.
	CheckGap = 250 * time.Millisecond
	// checkAge is how old the first look may be when the second is made.
	checkAge = 5 * time.Second
	// RaiseFor is for how long after a wake the size follows the messages that are
	// still arriving: one sync period of the HPA, which then has a look itself
	// (kube-controller-manager, --horizontal-pod-autoscaler-sync-period, 15 s).
	RaiseFor = 15 * time.Second
	// RaiseGap is the least time from one raise to the next.
	RaiseGap = 250 * time.Millisecond
	// StandbyDelay is how long a replica that does not lead leaves a wake to the one
	// that does.
	StandbyDelay = 200 * time.Millisecond
	// strandedAfter is for how long a target must have been without any pod before a
	// message that is still in flight counts as stranded: until then it may be what was
	// known of workers that are gone, or a count that the broker makes seldom (RabbitMQ
	// counts its quorum queues each 5 s).
	strandedAfter = 6 * time.Second
	// watchful and drowsy are when a target is looked at again at the latest, awake and
	// asleep.
	watchful, drowsy = time.Second, 5 * time.Second
	// leastSamples is the share of the samples expected within a window that must be
	// there for it to count.
	leastSamples = 0.9
)

// Spec says what is wanted of a target. It comes from its HPA and may change.
type Spec struct {
	// Window is for how long without a break there must have been nothing to do.
	Window time.Duration
	// Floor is the least size that the HPA keeps, at least 1; Ceiling the largest.
	Floor, Ceiling int32
	// Paused holds the target at its size.
	Paused bool
	// HPASleeps is true where the HPA itself goes to zero (minReplicas: 0): then it
	// decides when, and this package alone when to come back.
	HPASleeps bool
	// Foreign names metrics of the HPA that are not ours, of which nothing is known
	// here: with them idleness is never concluded. Empty if there are none.
	Foreign string
}

// Queue is one of those that the target works for.
type Queue struct {
	// Name is for people, as "broker/label".
	Name  string
	Depth queue.Depth
}

// Worker is one that is not idle, or of which that is not known.
type Worker struct {
	// Name is that of its pod; Reason says why it is not idle.
	Name, Reason string
}

// Observation is what is known of a target at one moment.
type Observation struct {
	// Replicas is spec.replicas of the target; meaningless with ReplicasErr.
	Replicas    int32
	ReplicasErr error
	// Pods is how many pods there are, those included that are ending.
	Pods int
	// Queues are those behind the HPA's signals. QueuesErr says why some are not
	// known; then those that are known are given all the same.
	Queues    []Queue
	QueuesErr error
	// Interval is the time from one sample to the next, of the slowest of the queues'
	// brokers.
	Interval time.Duration
	// Workers are those that are not idle; WorkersErr says why nothing is known.
	Workers    []Worker
	WorkersErr error
	// Wanted is the size that the HPA would compute from its own metrics and bounds
	// of now, 0 where there is nothing to do; meaningless with WantedErr.
	Wanted    int32
	WantedErr error
	// Leads is whether this replica of celery-hpa is the one that puts to sleep.
	Leads bool
}

// State is what Decide remembers of a target. The zero value is that of a start.
type State struct {
	// IdleSince is when the idle window began, zero if there is none.
	IdleSince time.Time
	// Samples counts the samples within it, LastSample is the time of the latest.
	Samples    int
	LastSample time.Time
	// CheckedAt is when the first fresh look found nothing to do, zero if none has.
	CheckedAt time.Time
	// Seen tells whether the size was known before, and Replicas which it was.
	Seen     bool
	Replicas int32
	// AsleepSince is when the target was first seen at zero, EmptySince when it was
	// first seen there without any pod; zero while it is not.
	AsleepSince, EmptySince time.Time
	// WokeAt is when it was last seen to leave zero, zero if it never was.
	WokeAt time.Time
	// RaisedAt is when Decide last asked for a larger size.
	RaisedAt time.Time
	// ShortSince is since when more workers are wanted than there are, while the target
	// sleeps or is being raised; zero if they are not. The time in which that was not
	// known is left out.
	ShortSince time.Time
	// ShortAt is when the messages were counted that wait for them, at zero; it is zero for
	// one that is stranded. UnsureSince is since when it is not known whether these still
	// wait, zero if it is.
	ShortAt, UnsureSince time.Time
}

// Action is what is to be done.
type Action int

// The actions.
const (
	// Hold: nothing.
	Hold Action = iota
	// Check: look afresh, and ask Confirm.
	Check
	// Sleep: scale to zero.
	Sleep
	// Wake: scale from zero to Decision.Replicas.
	Wake
	// Raise: scale to Decision.Replicas, which is more than there is.
	Raise
)

// String is the action in lower case, as metrics and logs have it.
func (a Action) String() string {
	names := [...]string{"hold", "check", "sleep", "wake", "raise"}
	if a < 0 || int(a) >= len(names) {
		return "hold"
	}
	return names[a]
}

// Cause is why, as one word for metrics.
type Cause string

// The causes. Those up to Unclear keep a target from going to zero.
const (
	Work     Cause = "work"     // messages wait, or are in flight
	Busy     Cause = "busy"     // a worker is not idle
	Unknown  Cause = "unknown"  // something is not known
	Foreign  Cause = "foreign"  // the HPA has metrics that are not ours
	Paused   Cause = "paused"   // by annotation
	Above    Cause = "above"    // the size is above the floor: the HPA's turn
	Window   Cause = "window"   // idle, but not for long enough
	Gaps     Cause = "gaps"     // too few samples within the window
	Standby  Cause = "standby"  // another replica of celery-hpa leads
	HPA      Cause = "hpa"      // the HPA itself goes to zero
	Idle     Cause = "idle"     // idle for long enough
	Asleep   Cause = "asleep"   // at zero, and nothing to do
	Stranded Cause = "stranded" // a message is in flight, and nobody is there
	Ending   Cause = "ending"   // messages in flight at zero, in pods that still end
	Arrived  Cause = "arrived"  // messages have arrived
)

// Decision is what to do about a target, and why.
type Decision struct {
	Action Action
	// Replicas is the size to scale to, with Wake and Raise.
	Replicas int32
	Cause    Cause
	// Reason is a sentence for people, without an end mark. It stays the same for as
	// long as nothing changes: times are not part of it.
	Reason string
	// After is when to ask again at the latest, if nothing else happens.
	After time.Duration
	// Remaining is what is left of the idle window, while one runs.
	Remaining time.Duration
}
