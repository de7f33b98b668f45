package playground

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/celery-hpa/celery-hpa/hack/playground/internal/history"
)

// Change is a number of replicas that the fleet is to have (spec.replicas), and when
// a watch has seen it.
type Change = history.Change

// History returns every number of replicas that the fleet was to have since it was
// made, in order, none left out, beginning with the first.
func (p *Playground) History() ([]Change, error) {
	return p.history.Changes()
}

// watchReplicas keeps the history until the playground stops.
func (p *Playground) watchReplicas(ctx context.Context, _ Options) error {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends in Stop, not with Start
	seen, err := p.openWatch(ctx)
	if err != nil {
		stop()
		return err
	}
	p.history = &history.History{}
	var running sync.WaitGroup
	running.Go(func() { p.history.Keep(seen.ResultChan()) })
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
