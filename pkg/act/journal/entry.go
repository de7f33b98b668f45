package journal

import (
	"cmp"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// What an entry keeps at the most; those go first that keep a target awake.
const (
	mostQueues  = 10
	mostWorkers = 5
)

// Entry is a decision with what was known then. It is not changed after it was handed
// out. In JSON, null stands for what was not known.
type Entry struct {
	// At is when it was decided for the first time.
	At time.Time `json:"at"`
	// Action, Cause and Reason are those of the decision; To is the size that it asks
	// for, 0 if it asks for none.
	Action string     `json:"action"`
	Cause  idle.Cause `json:"cause"`
	Reason string     `json:"reason"`
	To     int32      `json:"to,omitempty"`
	// Outcome says what has become of the action, for people; empty as long as
	// nothing has.
	Outcome string `json:"outcome,omitempty"`
	// Replicas is the size, Wanted what the HPA would compute, Pods how many pods
	// there were.
	Replicas *int32 `json:"replicas"`
	Wanted   *int32 `json:"wanted"`
	Pods     int    `json:"pods"`
	// Leads is whether this replica of celery-hpa led.
	Leads bool `json:"leads"`
	// Queues are those that the target works for, MoreQueues how many there were
	// beside them.
	Queues     []Queue `json:"queues"`
	MoreQueues int     `json:"moreQueues,omitempty"`
	// Workers are those that were not idle, MoreWorkers how many there were beside
	// them.
	Workers     []Worker `json:"workers"`
	MoreWorkers int      `json:"moreWorkers,omitempty"`
	// Unknown says why something was not known: replicas, wanted, queues, workers.
	Unknown map[string]string `json:"unknown,omitempty"`
}

// Queue is what was known of a queue.
type Queue struct {
	Name      string `json:"name"`
	Backlog   *int64 `json:"backlog"`
	InFlight  *int64 `json:"inFlight"`
	Scheduled *int64 `json:"scheduled"`
	// AgeSeconds is how old the oldest of the counts was.
	AgeSeconds float64 `json:"ageSeconds"`
	// Unknown says why a count was not known.
	Unknown string `json:"unknown,omitempty"`
}

// Worker is one that was not idle, or of which that was not known.
type Worker struct {
	Pod    string `json:"pod"`
	Reason string `json:"reason"`
}

func newEntry(o idle.Observation, d idle.Decision, at time.Time) Entry {
	e := Entry{
		At: at, Action: d.Action.String(), Cause: d.Cause, Reason: d.Reason, To: d.Replicas,
		Pods: o.Pods, Leads: o.Leads,
	}
	e.Replicas = known(o.Replicas, o.ReplicasErr)
	e.Wanted = known(o.Wanted, o.WantedErr)
	e.Unknown = unknowns(o)
	queues := mostOf(o.Queues, mostQueues, keepsAwake)
	e.MoreQueues = len(o.Queues) - len(queues)
	e.Queues = make([]Queue, 0, len(queues))
	for _, q := range queues {
		e.Queues = append(e.Queues, queueOf(q, at))
	}
	workers := o.Workers[:min(len(o.Workers), mostWorkers)]
	e.MoreWorkers = len(o.Workers) - len(workers)
	e.Workers = make([]Worker, 0, len(workers))
	for _, w := range workers {
		e.Workers = append(e.Workers, Worker{Pod: w.Name, Reason: w.Reason})
	}
	return e
}

// known is a copy of n, nil if it is not known.
func known[N int32 | int64](n N, err error) *N {
	if err != nil {
		return nil
	}
	return &n
}

func unknowns(o idle.Observation) map[string]string {
	var texts map[string]string
	for what, err := range map[string]error{
		"replicas": o.ReplicasErr, "wanted": o.WantedErr, "queues": o.QueuesErr, "workers": o.WorkersErr,
	} {
		if err == nil {
			continue
		}
		if texts == nil {
			texts = map[string]string{}
		}
		texts[what] = err.Error()
	}
	return texts
}

// mostOf is the first most of all, those before others that come first. It keeps the
// order otherwise, and all if they are not too many.
func mostOf[T any](all []T, most int, first func(T) bool) []T {
	if len(all) <= most {
		return all
	}
	rank := func(t T) int {
		if first(t) {
			return 0
		}
		return 1
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b T) int { return cmp.Compare(rank(a), rank(b)) })
	return sorted[:most]
}

// keepsAwake tells whether a queue is not known to be empty, with nothing in flight.
func keepsAwake(q idle.Queue) bool {
	return q.Depth.Backlog.Err != nil || q.Depth.InFlight.Err != nil || q.Depth.Backlog.N > 0 || q.Depth.InFlight.N > 0
}

func queueOf(q idle.Queue, at time.Time) Queue {
	counts := [...]queue.Count{q.Depth.Backlog, q.Depth.InFlight, q.Depth.Scheduled}
	shown := Queue{
		Name:      q.Name,
		Backlog:   known(counts[0].N, counts[0].Err),
		InFlight:  known(counts[1].N, counts[1].Err),
		Scheduled: known(counts[2].N, counts[2].Err),
	}
	for _, c := range counts {
		switch {
		case c.Err == nil:
			shown.AgeSeconds = max(shown.AgeSeconds, at.Sub(c.At).Seconds())
		case shown.Unknown == "":
			shown.Unknown = c.Err.Error()
		}
	}
	return shown
}
