package workers

import (
	"context"
	"log/slog"

	"github.com/celery-hpa/celery-hpa/pkg/observe/internal/perbroker"
)

// Group hears the workers of each broker that it was last told of. Its methods are
// safe for concurrent use.
type Group struct {
	store    *Store
	recorder Recorder
	keep     func(namespace, host string) bool
	log      *slog.Logger
	loops    perbroker.Group[*loop]
}

// NewGroup makes a group without brokers, which fills the store. A worker that has
// gone silent is remembered while keep is true for its host, which is asked with the
// store locked: keep must not call it.
func NewGroup(store *Store, recorder Recorder, keep func(namespace, host string) bool, log *slog.Logger) *Group {
	return &Group{store: store, recorder: recorder, keep: keep, log: log}
}

// Apply makes the group hear the workers of exactly these brokers: those that are
// gone or changed are forgotten. It blocks until what is to end has ended. Loops run
// until ctx is done at the latest; see Wait.
func (g *Group) Apply(ctx context.Context, specs []Spec) {
	loops := make([]*loop, 0, len(specs))
	for _, spec := range specs {
		loops = append(loops, &loop{
			spec: spec, store: g.store, recorder: g.recorder, keep: g.keep,
			log: g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
		})
	}
	g.loops.Apply(ctx, loops)
}

// Wait blocks until every loop has returned, which needs the context given to Apply
// to be done.
func (g *Group) Wait() { g.loops.Wait() }
