package playground

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Change is a number of replicas that the fleet is to have (spec.replicas), and when
// a watch has seen it.
type Change struct {
	At       time.Time
	Replicas int32
}

// String is like "10 at 15:04:05.000".
func (c Change) String() string {
	return fmt.Sprintf("%d at %s", c.Replicas, c.At.Format("15:04:05.000"))
}

// history is all that a watch has seen.
type history struct {
	mu      sync.Mutex
	changes []Change
	ended   error // why the watch sees nothing more
}

// History returns every number of replicas that the fleet was to have since it was
// made, in order, none left out, beginning with the first.
func (p *Playground) History() ([]Change, error) {
	p.history.mu.Lock()
	defer p.history.mu.Unlock()
	return slices.Clone(p.history.changes), p.history.ended
}

// watchReplicas keeps the history until the playground stops.
func (p *Playground) watchReplicas(ctx context.Context, _ Options) error {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends in Stop, not with Start
	seen, err := p.openWatch(ctx)
	if err != nil {
		stop()
		return err
	}
	p.history = &history{}
	var running sync.WaitGroup
	running.Go(func() { p.history.keep(seen.ResultChan()) })
	p.undo = append(p.undo, func() error {
		stop()
		seen.Stop()
		running.Wait()
		return nil
	})
	return nil
}

// openWatch watches the fleet, which exists.
func (p *Playground) openWatch(ctx context.Context) (watch.Interface, error) {
	options := metav1.ListOptions{
		FieldSelector:  "metadata.name=" + Workers,
		TimeoutSeconds: new(int64(24 * 3600)), // longer than any playground lives
	}
	open := p.clients.AppsV1().Deployments(Namespace).Watch
	if p.layout.Workers.StatefulSet {
		open = p.clients.AppsV1().StatefulSets(Namespace).Watch
	}
	seen, err := open(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch the replicas of the workers: %w", err)
	}
	return seen, nil
}

// keep takes in events until there are no more.
func (h *history) keep(events <-chan watch.Event) {
	for event := range events {
		h.see(wanted(event.Object), time.Now())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = errors.New("the watch of the workers' replicas has ended: what came after is not known")
}

func (h *history) see(replicas *int32, at time.Time) {
	if replicas == nil {
		return // no event of a fleet
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.changes); n == 0 || h.changes[n-1].Replicas != *replicas {
		h.changes = append(h.changes, Change{At: at, Replicas: *replicas})
	}
}

// wanted is spec.replicas of a Deployment or StatefulSet.
func wanted(object runtime.Object) *int32 {
	switch fleet := object.(type) {
	case *appsv1.Deployment:
		return fleet.Spec.Replicas
	case *appsv1.StatefulSet:
		return fleet.Spec.Replicas
	}
	return nil
}
