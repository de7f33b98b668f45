package fleet

import (
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Metric is one number of a fleet, under the name that it has as an external metric
// and as a Prometheus metric.
type Metric struct {
	// Name is in lower case: client-go lower-cases the names of metrics.
	Name string
	// Help says what the number means, in one sentence.
	Help string
	// Of takes the number from a fleet as it is now.
	Of func(f Fleet, now time.Time) queue.Count
}

// Metrics returns every metric of a fleet, in a fixed order.
func Metrics() []Metric {
	return []Metric{
		{
			Name: "celery_busy_workers",
			Help: "Workers that may execute a task, those included that are silent or shut down; in a StatefulSet the highest ordinal of one, plus 1.",
			Of:   busy,
		},
		{
			Name: "celery_worker_active_tasks",
			Help: "Tasks that execute in the fleet.",
			Of:   activeTasks,
		},
		{
			Name: "celery_worker_slots",
			Help: "Tasks that the ready workers of the fleet can execute at once.",
			Of:   slots,
		},
	}
}

// busy is the number of replicas below which a worker would be told to end that may
// execute something. A StatefulSet always removes its highest ordinal. A pod that is
// being deleted is none of the replicas any more; if it executed nothing at the end,
// counting it would have the HPA replace it.
func busy(f Fleet, now time.Time) queue.Count {
	n := f.count(now, func(m Member, n *queue.Count) {
		switch {
		case !m.State.IsBusy(), m.Terminating && m.Active.Err == nil && m.Active.N == 0:
		case f.Kind == StatefulSet:
			n.N = max(n.N, int64(m.Ordinal)+1)
		default:
			n.N++
		}
	})
	return f.withBegun(n)
}

// withBegun adds the idle workers to the busy ones that may have taken a task since they
// were heard: no more of them than tasks have begun unheard; in a StatefulSet it may be
// any of them.
func (f Fleet) withBegun(busy queue.Count) queue.Count {
	var may, begun int64
	for _, m := range f.Members {
		switch {
		case m.State != Idle || m.Begun == 0:
		case f.Kind == StatefulSet:
			busy.N = max(busy.N, int64(m.Ordinal)+1)
		default:
			may, begun = may+1, max(begun, m.Begun)
		}
	}
	busy.N += min(may, begun)
	return busy
}

func activeTasks(f Fleet, now time.Time) queue.Count {
	begun := int64(0)
	n := f.count(now, func(m Member, n *queue.Count) {
		*n = sum(*n, of(m, m.Active))
		begun = max(begun, m.Begun)
	})
	n.N += begun
	return n
}

func slots(f Fleet, now time.Time) queue.Count {
	return f.count(now, func(m Member, n *queue.Count) {
		if m.Ready && !m.Terminating {
			*n = sum(*n, of(m, m.Slots))
		}
	})
}

// of says whose count is unknown.
func of(m Member, c queue.Count) queue.Count {
	if c.Err != nil {
		return queue.Unknown(fmt.Errorf("pod %s: %w", m.Pod, c.Err))
	}
	return c
}

// count lets each pod add to a number, as of now.
func (f Fleet) count(now time.Time, add func(Member, *queue.Count)) queue.Count {
	if err := f.strange(); err != nil {
		return queue.Unknown(err)
	}
	n := queue.Known(0, now)
	for _, m := range f.Members {
		add(m, &n)
	}
	if n.Err != nil {
		return queue.Unknown(fmt.Errorf("%s: %w", f.Ref, n.Err))
	}
	return n
}

// strange says why nothing can be said of a fleet: it has pods, and no worker was
// ever heard in any of them.
func (f Fleet) strange() error {
	if f.Heard || len(f.Members) == 0 {
		return nil
	}
	return fmt.Errorf("no worker of %s was heard yet: %s", f.Ref, f.Members[0].Reason)
}
