package sampler

import (
	"context"
	"errors"
	"log/slog"
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
			spec: spec, store: g.store, recorder: g.recorder,
			log: g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
		})
	}
	g.loops.Apply(ctx, loops)
}

// Wait blocks until every loop has returned, which needs the context given to
// Apply to be done.
func (g *Group) Wait() { g.loops.Wait() }

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
}

// Ended drops what is known of the broker.
func (l *loop) Ended() {
	l.store.Forget(l.spec.Ref)
	l.recorder.Forget(l.spec.Ref)
}
