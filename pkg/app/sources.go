package app

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/celery-hpa/celery-hpa/pkg/brokerresource"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
)

// sources are where brokers come from: a file, a cluster, or both.
type sources struct {
	file      *brokersfile.Watcher    // nil without a file
	resources *brokerresource.Watcher // nil without a cluster

	mu    sync.Mutex // one change at a time
	apply func(ctx context.Context, found []brokers.Broker, known bool)
	ready atomic.Bool // everything was known once
}

// newSources reads the file, and asks nothing of the cluster yet.
func newSources(o Options, c *cluster) (*sources, error) {
	s := &sources{}
	if o.BrokersFile != "" {
		file, err := brokersfile.New(o.BrokersFile, o.Log)
		if err != nil {
			return nil, err
		}
		s.file = file
	}
	if c != nil {
		s.resources = brokerresource.NewWatcher(c.objects, c.clients.CoreV1(), s.ofFile, o.Log)
	}
	return s, nil
}

// ofFile are the brokers of the file. They go before those of the cluster.
func (s *sources) ofFile() []brokers.Broker {
	if s.file == nil {
		return nil
	}
	return s.file.Brokers()
}

// start calls apply with all brokers, now and whenever there are others, one call at a
// time, for as long as ctx goes on. Until they are known, some may be missing.
func (s *sources) start(ctx context.Context, running *errgroup.Group, apply func(ctx context.Context, found []brokers.Broker, known bool)) {
	s.apply = apply
	s.change(ctx)
	if s.file != nil {
		running.Go(func() error {
			return s.file.Run(ctx, func([]brokers.Broker) {
				if s.resources != nil {
					s.resources.Refresh()
				}
				s.change(ctx)
			})
		})
	}
	if s.resources != nil {
		running.Go(func() error {
			return s.resources.Run(ctx, func([]brokers.Broker) { s.change(ctx) })
		})
	}
}

// change applies what there is now. A broker of the file goes before one of the cluster
// that has its name, also while the cluster's has not been looked at again.
func (s *sources) change(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known() == nil // before the brokers: then none is missing
	first := s.ofFile()
	all := slices.Clone(first)
	if s.resources != nil {
		all = append(all, s.resources.Brokers()...)
	}
	twins := brokers.Twins(all)
	var found []brokers.Broker
	for i, b := range all {
		if twins[i] == nil || i < len(first) {
			found = append(found, b)
		}
	}
	s.apply(ctx, found, known)
}

// isReady returns nil once all brokers were known and have been sampled, or have failed
// with a reason that can be told. From then on it stays so: a broker that comes later is
// not to take away the metrics of all others.
func (s *sources) isReady(sampled func() error) error {
	if s.ready.Load() {
		return nil
	}
	if err := s.known(); err != nil {
		return err
	}
	if err := sampled(); err != nil {
		return err
	}
	s.ready.Store(true)
	return nil
}

// known returns nil once all brokers were known; else why they are not.
func (s *sources) known() error {
	if s.resources == nil {
		return nil
	}
	return s.resources.Ready()
}
