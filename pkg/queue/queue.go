package queue

import (
	"errors"
	"time"
)

// BrokerRef names one broker: the namespace and name of its CeleryBroker.
// Metrics of a broker exist in its namespace only.
type BrokerRef struct {
	Namespace string
	Name      string
}

// String returns "namespace/name".
func (r BrokerRef) String() string { return r.Namespace + "/" + r.Name }

// Count is a number of messages that is either known, with the time at which
// the broker said so, or unknown, with the reason. An unknown count has no
// value: whoever reads N must look at Err first.
type Count struct {
	// N is the number of messages, never negative. Meaningless if Err is set.
	N int64
	// At is the time since when the count holds: when the broker was asked, or
	// earlier where the broker itself answers with what it counted before. Counts
	// of one observation may differ in it where a broker has several sources.
	At time.Time
	// Err says why the count is unknown. It names no credential.
	Err error
}

// Known is a count of n messages as of at.
func Known(n int64, at time.Time) Count { return Count{N: n, At: at} }

// Unknown is a count that could not be read, for the given reason. Reason must
// not be nil.
func Unknown(reason error) Count { return Count{Err: reason} }

// Depth is what one queue holds.
type Depth struct {
	// Backlog counts the messages that a worker could take now, over all
	// priorities.
	Backlog Count
	// InFlight counts the messages that a worker holds and has not finished:
	// reserved (prefetched) plus executing plus held for an ETA.
	InFlight Count
	// Scheduled counts those of InFlight that a worker holds for an ETA or
	// countdown that has not come.
	Scheduled Count
	// Oldest is for how long the message has waited at least that has waited
	// longest, in milliseconds; 0 where none waits.
	Oldest Count
	// Wait is for how long a task that is sent now will wait, by how fast tasks are
	// taken, in milliseconds; 0 where none waits.
	Wait Count
	// Work is for how long the tasks that there are would execute one after the
	// other, by their mean runtime, in milliseconds.
	Work Count
}

// Tasks is the work there is now: backlog + in flight − scheduled. It is as old
// as the oldest of the three, and unknown if backlog or in flight is. Where
// nobody tells how many of those in flight are scheduled, none are taken out: it
// is never less than the work.
func (d Depth) Tasks() Count {
	if err := joinDistinct(d.Backlog.Err, d.InFlight.Err); err != nil {
		return Unknown(err)
	}
	tasks := Known(d.Backlog.N+d.InFlight.N, older(d.Backlog.At, d.InFlight.At))
	if d.Scheduled.Err == nil {
		tasks = Known(tasks.N-d.Scheduled.N, older(tasks.At, d.Scheduled.At))
	}
	return tasks
}

// older is the earlier of two times.
func older(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// joinDistinct joins errors, of those with the same text the first alone: what
// makes one count of a queue unknown mostly makes all of them unknown.
func joinDistinct(errs ...error) error {
	said := map[string]bool{}
	var distinct []error
	for _, err := range errs {
		if err != nil && !said[err.Error()] {
			said[err.Error()] = true
			distinct = append(distinct, err)
		}
	}
	return errors.Join(distinct...)
}

// Sample is the outcome of one exchange with a broker: every queue that the
// broker or its configuration knows. Queues are keyed by the name that the
// broker knows them by, which may hold any byte. A sample is not changed after
// it was returned.
type Sample struct {
	// At is when the broker was asked.
	At time.Time
	// Queues holds one entry for each known queue, empty ones included.
	Queues map[string]Depth
	// Unattributed counts the messages that workers hold but that could not be
	// assigned to any queue. While it is above zero, no queue's in-flight count
	// is known to be zero (see Depth of a driver that reports it).
	Unattributed int64
	// Delayed counts the messages that the broker itself holds back until their
	// time has come (Celery's native delayed delivery), for all queues together;
	// they are no backlog. Nil where it cannot be told.
	Delayed *Count
	// Degraded says what of the broker could not be read this time, and why,
	// while the rest could. It names no credential.
	Degraded error
	// DiscoveryPending is true while the list of queues may still be
	// incomplete, so that a missing queue is not proof of a wrong name.
	DiscoveryPending bool
}
