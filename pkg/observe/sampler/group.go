package sampler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/internal/perbroker"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Group runs one sampling loop for each broker that it was last told of. Its
// methods are safe for concurrent use.
type Group struct {
	store    *snapshot.Store
	recorder Recorder
	log      *slog.Logger
	loops    perbroker.Group[*loop]
	running  sync.Map // broker → its loop
}

// NewGroup makes a group without brokers. The outcome of each turn goes to the
// store and the recorder.
func NewGroup(store *snapshot.Store, recorder Recorder, log *slog.Logger) *Group {
	return &Group{store: store, recorder: recorder, log: log}
}

// Apply makes the group sample exactly these brokers: loops of brokers that are
// gone or changed end, together with what the store holds of them, loops of new
// or changed ones begin, and all others go on undisturbed. It blocks until the
// ended loops have returned. Loops run until ctx is done at the latest; see Wait.
func (g *Group) Apply(ctx context.Context, specs []Spec) {
	loops := make([]*loop, 0, len(specs))
	for _, spec := range specs {
		loops = append(loops, &loop{
			spec: spec, store: g.store, recorder: g.recorder, running: &g.running,
			log:    g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
			demand: newDemand(),
		})
	}
	g.loops.Apply(ctx, loops)
}

// Wait blocks until every loop has returned, which needs the context given to
// Apply to be done.
func (g *Group) Wait() { g.loops.Wait() }

// Fresh has a sample of a broker taken that begins after the call, and returns when
// the store has it: nil, or why that turn failed. It does not wait for the schedule,
// which goes on from that turn. Calls at the same time share a turn. It blocks until
// then, or until ctx is done.
func (g *Group) Fresh(ctx context.Context, ref queue.BrokerRef) error {
	l, ok := g.loop(ref)
	if !ok {
		return fmt.Errorf("broker %s cannot be sampled afresh: %w", ref, errNotSampled)
	}
	return l.demand.fresh(ctx, ref)
}

// Hurry has the next sample of a broker taken now, or right after the one that is
// being taken. It does not wait for it. Of a broker that is not sampled it does
// nothing.
func (g *Group) Hurry(ref queue.BrokerRef) {
	if l, ok := g.loop(ref); ok {
		l.demand.hurry()
	}
}

// loop does not wait for a call of Apply, as a look by way of loops would.
func (g *Group) loop(ref queue.BrokerRef) (*loop, bool) {
	found, _ := g.running.Load(ref)
	l, ok := found.(*loop)
	return l, ok
}

// Alive returns nil if every loop keeps to its schedule, else an error that
// names those that hang.
func (g *Group) Alive() error {
	now := time.Now()
	var errs []error
	g.loops.Each(func(l *loop) { errs = append(errs, l.alive(now)) })
	return errors.Join(errs...)
}

// Broker implements perbroker.Loop.
func (l *loop) Broker() queue.BrokerRef { return l.spec.Ref }

// Fingerprint implements perbroker.Loop.
func (l *loop) Fingerprint() string { return l.spec.Fingerprint }

// Begin makes the broker known as one that is not sampled yet.
func (l *loop) Begin() {
	l.lastTurn.Store(time.Now().UnixNano())
	l.store.Declare(l.spec.Declaration)
	l.running.Store(l.spec.Ref, l)
}

// Ended drops what is known of the broker.
func (l *loop) Ended() {
	l.running.Delete(l.spec.Ref)
	l.store.Forget(l.spec.Ref)
	l.recorder.Forget(l.spec.Ref)
}
