package fleet

import (
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Verdict is what is known of a worker, or of all those in one pod.
type Verdict struct {
	State  State
	Reason string
	// Since is when it came to be so, zero if that was not seen.
	Since time.Time
	// Active, Slots and Begun are as in Member.
	Active, Slots queue.Count
	Begun         int64
}

// Judge says what a worker is doing by what was heard of it.
func Judge(w workers.Worker, now time.Time) Verdict {
	v := Verdict{Since: w.Since, Slots: slotsOf(w), Active: queue.Known(w.Active.N, w.HeardAt), Begun: w.Begun}
	switch {
	case w.Offline():
		v.State, v.Since, v.Reason = Draining, w.OfflineAt, fmt.Sprintf("worker %s shuts down since %s", w.Node, ago(now.Sub(w.OfflineAt)))
	case w.Silent(now):
		v.State, v.Since, v.Reason = Unknown, w.HeardAt, fmt.Sprintf("worker %s is silent for %s, with heartbeats every %s", w.Node, ago(now.Sub(w.HeardAt)), w.Frequency)
	case !w.Active.Known:
		v.State, v.Reason = Unknown, fmt.Sprintf("the latest heartbeat of worker %s does not tell how many tasks execute", w.Node)
	case w.Active.N > 0:
		v.State, v.Reason = Busy, fmt.Sprintf("worker %s executes %d tasks", w.Node, w.Active.N)
	case w.Told > 0:
		v.State, v.Since, v.Active = Busy, w.ToldAt, queue.Known(int64(w.Told), w.ToldAt)
		v.Reason = fmt.Sprintf("worker %s says that it executes %d tasks", w.Node, w.Told)
	case w.Moved:
		v.State, v.Reason = Busy, fmt.Sprintf("worker %s has taken tasks since its heartbeat before", w.Node)
	default:
		v.State, v.Reason = Idle, fmt.Sprintf("worker %s executes nothing since %s", w.Node, ago(now.Sub(w.Since)))
	}
	if v.State == Unknown || !w.Active.Known {
		v.Active = queue.Unknown(errors.New(v.Reason))
	}
	return v
}

func slotsOf(w workers.Worker) queue.Count {
	if !w.Slots.Known {
		return queue.Unknown(fmt.Errorf("worker %s has not told by remote control how many tasks it can execute", w.Node))
	}
	return queue.Known(w.Slots.N, w.HeardAt)
}

// pod is what judging needs to know of one.
type pod struct {
	ready, terminating bool
	// restartedAt is when a container of it was seen to have been started again;
	// alone tells whether it has one container only.
	restartedAt time.Time
	alone       bool
	// shared is how many pods have the host name of this one, itself included.
	shared int
}

// judgePod says what the workers of a pod are doing, given those that were heard on
// its host.
func judgePod(p pod, heard []workers.Worker, now time.Time) Verdict {
	v := p.unheard(now)
	if live := p.live(heard); len(live) > 0 {
		v = Judge(live[0], now)
		for _, w := range live[1:] {
			v = both(v, Judge(w, now))
		}
		if p.shared > len(live) || p.shared > 1 && v.State != Idle {
			v = unknown(fmt.Sprintf("its host name is that of %d pods: whose workers are heard cannot be told", p.shared))
		}
	}
	if p.terminating {
		v.State, v.Reason = Draining, "the pod is being deleted; "+v.Reason
	}
	return v
}

// unheard is what is known of a pod by itself.
func (p pod) unheard(now time.Time) Verdict {
	if p.ready {
		return unknown("the pod is ready, but its worker was never heard (is the node name celery@POD? does it send heartbeats?)")
	}
	v := unknown("the pod is not ready yet, and its worker was not heard yet")
	v.State, v.Active = Starting, queue.Known(0, now)
	return v
}

func unknown(reason string) Verdict {
	err := errors.New(reason)
	return Verdict{State: Unknown, Reason: reason, Active: queue.Unknown(err), Slots: queue.Unknown(err)}
}

// live leaves out what was heard of processes that have ended since: those of
// containers before their restart. Which container a process was in is not told,
// so that where there are several it must have been followed by another.
func (p pod) live(heard []workers.Worker) []workers.Worker {
	var before, since []workers.Worker
	for _, w := range heard {
		if w.HeardAt.Before(p.restartedAt) {
			before = append(before, w)
			continue
		}
		if p.alone && w.OfflineAt.Before(p.restartedAt) {
			w.OfflineAt = time.Time{} // it was the process before that shut down
		}
		since = append(since, w)
	}
	if p.alone || len(since) > 0 {
		return since
	}
	return before
}

// both is the verdict on two workers: what is more of a reason to leave the pod
// alone goes first.
func both(a, b Verdict) Verdict {
	rank := map[State]int{Idle: 0, Starting: 1, Busy: 2, Draining: 3, Unknown: 4}
	if rank[b.State] > rank[a.State] {
		a, b = b, a
	}
	if a.State == b.State && b.Since.After(a.Since) {
		a.Since = b.Since
	}
	a.Active, a.Slots, a.Begun = sum(a.Active, b.Active), sum(a.Slots, b.Slots), max(a.Begun, b.Begun)
	return a
}

// sum is unknown if one of both is.
func sum(a, b queue.Count) queue.Count {
	switch {
	case a.Err != nil:
		return a
	case b.Err != nil:
		return b
	case b.At.Before(a.At):
		return queue.Known(a.N+b.N, b.At)
	}
	return queue.Known(a.N+b.N, a.At)
}
