package workers

import (
	"context"
	"log/slog"

	"github.com/celery-hpa/celery-hpa/pkg/observe/internal/perbroker"
)

// Pods tells whether a host has a pod; known is false where that cannot be said.
type Pods func(namespace, host string) (has, known bool)

// Group hears the workers of each broker that it was last told of. Its methods are
// safe for concurrent use.
type Group struct {
	store    *Store
	recorder Recorder
	pods     Pods
	log      *slog.Logger
	loops    perbroker.Group[*loop]
}

// NewGroup makes a group without brokers, which fills the store. A worker that has
// gone silent is remembered while its host has a pod, or may have. Pods is asked with
// the store locked: it must not call it.
func NewGroup(store *Store, recorder Recorder, pods Pods, log *slog.Logger) *Group {
	return &Group{store: store, recorder: recorder, pods: pods, log: log}
}

// Apply makes the group hear the workers of exactly these brokers: those that are
// gone or changed are forgotten. It blocks until what is to end has ended. Loops run
// until ctx is done at the latest; see Wait.
func (g *Group) Apply(ctx context.Context, specs []Spec) {
	loops := make([]*loop, 0, len(specs))
	for _, spec := range specs {
		loops = append(loops, &loop{
			spec: spec, store: g.store, recorder: g.recorder, pods: g.pods,
			log: g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
		})
	}
	g.loops.Apply(ctx, loops)
}

// Wait blocks until every loop has returned, which needs the context given to Apply
// to be done.
func (g *Group) Wait() { g.loops.Wait() }
