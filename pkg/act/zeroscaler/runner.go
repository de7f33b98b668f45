package zeroscaler

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// leastPause is the least time between two steps of a target.
	leastPause = 2 * time.Millisecond
	// mistakenPause is how often a target is looked at that nothing can be done about.
	mistakenPause = time.Minute
)

// runner steps the machine of one target, whenever there is a reason to.
type runner struct {
	scaler    *Scaler
	namespace string
	target    atomic.Pointer[target.Target]
	machine   *Machine
	run       func() // blocks until stop
	stop      context.CancelFunc
	pokes     chan struct{} // holds one token: look at once
	asleep    atomic.Bool

	watched map[queue.BrokerRef][]string // written by the goroutine of run alone, with scaler.mu held
}

func newRunner(ctx context.Context, s *Scaler, t target.Target) *runner {
	ctx, stop := context.WithCancel(ctx)
	r := &runner{
		scaler: s, namespace: t.Namespace, machine: NewMachine(s.parts),
		stop: stop, pokes: make(chan struct{}, 1),
	}
	r.target.Store(&t)
	r.run = func() { r.loop(ctx) }
	return r
}

func (r *runner) name() name { return name{r.namespace, r.target.Load().HPA} }

// scales reports whether this runner is for what an HPA scales: with another target, or
// another HPA of the same name, everything begins anew.
func (r *runner) scales(t target.Target) bool {
	mine := r.target.Load()
	return mine.UID == t.UID && mine.APIVersion == t.APIVersion && mine.Kind == t.Kind && mine.Name == t.Name
}

// change tells the runner what its HPA says now.
func (r *runner) change(t target.Target) {
	if !r.target.Load().Equal(t) {
		r.target.Store(&t)
		r.poke()
	}
}

// poke has the runner look at once. It does not block.
func (r *runner) poke() {
	select {
	case r.pokes <- struct{}{}:
	default: // it will look anyway
	}
}

// loop steps until ctx is done.
func (r *runner) loop(ctx context.Context) {
	defer func() { r.scaler.parts.Journal.Forget(*r.target.Load()) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.pokes:
		}
		timer.Reset(max(r.step(ctx), leastPause))
	}
}

// step looks at the target once, and returns when to look again at the latest.
func (r *runner) step(ctx context.Context) time.Duration {
	t := *r.target.Load()
	if t.Zero.Mistake != nil {
		r.machine = NewMachine(r.scaler.parts)
		r.asleep.Store(false)
		r.keepWatch(nil)
		r.scaler.parts.Journal.Mistaken(t, r.scaler.parts.Now())
		return mistakenPause
	}
	after := r.machine.Step(ctx, t)
	watchful := r.machine.Watchful()
	if !watchful {
		r.keepWatch(nil)
	} else {
		r.keepWatch(r.scaler.parts.Senses.Queues(t))
	}
	r.rest(r.machine.state.Seen && r.machine.state.Replicas == 0)
	return after
}

// keepWatch makes these the queues that are watched closely for the target.
func (r *runner) keepWatch(queues map[queue.BrokerRef][]string) {
	for _, names := range queues {
		slices.Sort(names)
	}
	if len(queues) == 0 && len(r.watched) == 0 || reflect.DeepEqual(queues, r.watched) {
		return
	}
	r.scaler.watches(r, queues)
}

// rest notes whether the target sleeps. Once it has woken, fresh counts are wanted.
func (r *runner) rest(asleep bool) {
	if r.asleep.Swap(asleep) && !asleep {
		for ref := range r.watched {
			r.scaler.sampling.Hurry(ref)
		}
	}
}

func compareRefs(a, b queue.BrokerRef) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
