package sampler

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Group runs one sampling loop for each broker that it was last told of. Its
// methods are safe for concurrent use.
type Group struct {
	store    *snapshot.Store
	recorder Recorder
	log      *slog.Logger

	mu     sync.Mutex
	active map[queue.BrokerRef]*member
}

// member is a running loop and the means to end it.
type member struct {
	*loop
	stop context.CancelFunc
	done chan struct{}
}

// NewGroup makes a group without brokers. The outcome of each turn goes to the
// store and the recorder.
func NewGroup(store *snapshot.Store, recorder Recorder, log *slog.Logger) *Group {
	return &Group{store: store, recorder: recorder, log: log, active: map[queue.BrokerRef]*member{}}
}

// Apply makes the group sample exactly these brokers: loops of brokers that are
// gone or changed end, together with what the store holds of them, loops of new
// or changed ones begin, and all others go on undisturbed. It blocks until the
// ended loops have returned. Loops run until ctx is done at the latest; see Wait.
func (g *Group) Apply(ctx context.Context, specs []Spec) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wanted := make(map[queue.BrokerRef]Spec, len(specs))
	for _, spec := range specs {
		wanted[spec.Ref] = spec
	}
	g.end(func(m *member) bool { return wanted[m.spec.Ref].Fingerprint != m.spec.Fingerprint })
	for _, spec := range specs {
		if g.active[spec.Ref] == nil {
			g.begin(ctx, spec)
		}
	}
}

// Wait blocks until every loop has returned, which needs the context given to
// Apply to be done.
func (g *Group) Wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.active {
		<-m.done
	}
}

// Alive returns nil if every loop keeps to its schedule, else an error that
// names those that hang.
func (g *Group) Alive() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	var errs []error
	for _, m := range g.active {
		errs = append(errs, m.alive(now))
	}
	return errors.Join(errs...)
}

// end stops the loops that gone selects, waits for them, and forgets their
// brokers.
func (g *Group) end(gone func(*member) bool) {
	var ended []*member
	for _, m := range g.active {
		if gone(m) {
			m.stop()
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		<-m.done
		g.store.Forget(m.spec.Ref)
		g.recorder.Forget(m.spec.Ref)
		delete(g.active, m.spec.Ref)
	}
}

func (g *Group) begin(ctx context.Context, spec Spec) {
	ctx, stop := context.WithCancel(ctx)
	m := &member{stop: stop, done: make(chan struct{}), loop: &loop{
		spec: spec, store: g.store, recorder: g.recorder,
		log: g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
	}}
	m.lastTurn.Store(time.Now().UnixNano())
	g.store.Declare(spec.Declaration)
	g.active[spec.Ref] = m
	go func() {
		defer close(m.done)
		m.run(ctx)
	}()
}
