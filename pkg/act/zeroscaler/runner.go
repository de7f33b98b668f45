package zeroscaler

import (
	"cmp"
	"context"
	"reflect"
	"sync"
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

// runner steps the machine of one target, whenever there is a reason to. Between steps
// it has no goroutine: those of thousands of targets that sleep would be most of the
// memory.
type runner struct {
	scaler    *Scaler
	namespace string
	target    atomic.Pointer[target.Target]
	machine   *Machine // of the goroutine that steps alone
	steps     func()   // steps for as long as there is a reason to
	cancel    context.CancelFunc
	asleep    atomic.Bool

	mu    sync.Mutex
	phase phase
	again *time.Timer // pokes

	watched map[queue.BrokerRef][]string // written by the goroutine that steps alone, with scaler.mu held
}

// phase is what a runner does.
type phase int

const (
	waiting  phase = iota // nobody steps
	stepping              // somebody does
	poked                 // somebody does, and is to go on
	ended                 // nobody will any more, or only to the end of a step
)

func newRunner(ctx context.Context, s *Scaler, t target.Target) *runner {
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{scaler: s, namespace: t.Namespace, machine: NewMachine(s.parts), cancel: cancel}
	r.target.Store(&t)
	r.steps = func() { r.stepOn(ctx) }
	r.mu.Lock() // which the first poke waits for
	defer r.mu.Unlock()
	r.again = time.AfterFunc(0, r.poke)
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
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.phase {
	case waiting:
		r.phase = stepping
		r.scaler.stepping.Go(r.steps)
	case stepping:
		r.phase = poked
	case poked, ended:
	}
}

// stepOn steps until nobody has poked meanwhile, or the runner has ended.
func (r *runner) stepOn(ctx context.Context) {
	for {
		after := r.step(ctx)
		if r.pause(after) {
			return
		}
	}
}

// pause ends the stepping, for that long at the most, unless somebody has poked. It
// reports whether it did.
func (r *runner) pause(atMost time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.phase {
	case poked:
		r.phase = stepping
		return false
	case ended:
		r.forget()
		return true
	case waiting, stepping:
	}
	r.phase = waiting
	r.again.Reset(max(atMost, leastPause))
	return true
}

// stop ends the runner. It does not wait for a step that is under way.
func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel()
	r.again.Stop()
	if r.phase == waiting {
		r.forget()
	}
	r.phase = ended
}

func (r *runner) forget() { r.scaler.parts.Journal.Forget(*r.target.Load()) }

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
