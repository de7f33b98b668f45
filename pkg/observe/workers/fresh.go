package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
)

// Fresh asks the live workers on some hosts of a namespace, by remote control, what they
// execute, and returns when all have answered: then the store knows (Worker.Told). The
// error names those that have not within a second, which says nothing of what they do,
// and brokers whose workers cannot be asked. Where asking is switched off nobody is
// asked, and heartbeats are all there is.
//
// It blocks for about a second, or until ctx is done, and leaves the questions alone that
// are asked in any case.
func (g *Group) Fresh(ctx context.Context, namespace string, hosts []string) error {
	var asked []*loop
	g.loops.Each(func(l *loop) {
		if l.spec.Ref.Namespace == namespace && l.spec.Control {
			asked = append(asked, l)
		}
	})
	var errs []error
	for _, l := range asked {
		if err := l.fresh(ctx, hosts); err != nil {
			errs = append(errs, fmt.Errorf("broker %s: %w", l.spec.Ref, err))
		}
	}
	return errors.Join(errs...)
}

// fresh asks the workers of one broker.
func (l *loop) fresh(ctx context.Context, hosts []string) error {
	source := l.source.Load()
	nodes := l.store.live(l, hosts)
	if len(nodes) == 0 {
		return nil
	}
	if source == nil {
		return ErrNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	replies, err := (*source).Ask(ctx, monitor.MethodActive, nodes)
	l.store.edit(l.spec.Ref, func(b *shelf) { b.learn(monitor.MethodActive, nodes, replies, time.Now()) })
	if err != nil {
		return fmt.Errorf("ask what workers execute: %w", err)
	}
	if silent := asking.Silent(nodes, replies); len(silent) > 0 {
		return fmt.Errorf("asked what they execute, workers have not answered: %s", strings.Join(silent, ", "))
	}
	return nil
}

// live returns the names of the workers on some hosts that can be expected to answer.
func (s *Store) live(l *loop, hosts []string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, now := s.books[l.spec.Ref], time.Now()
	if b == nil {
		return nil
	}
	var nodes []string
	for _, host := range hosts {
		for _, e := range b.hosts[host] {
			if !e.Offline() && !e.Silent(now) && !slices.Contains(nodes, e.Node) {
				nodes = append(nodes, e.Node)
			}
		}
	}
	return nodes
}
