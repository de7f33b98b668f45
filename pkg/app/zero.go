package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
	"github.com/celery-hpa/celery-hpa/pkg/act/scale"
	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// zero is all that takes targets to zero and back.
type zero struct {
	scales   *scale.Scales
	memory   *zeroscaler.Memory
	journal  *journal.Journal
	elector  *leader.Elector
	scaler   *zeroscaler.Scaler
	lookouts *lookout.Group
	exporter *promexport.Lookouts
	store    *snapshot.Store
	looks    *admission.Looks

	mu    sync.Mutex
	every map[queue.BrokerRef]time.Duration // from one sample of a broker to the next
}

// newZero makes what a cluster's targets need, which a group samples into a store.
func newZero(o Options, w *workforce, metrics zeroscaler.Metrics, group *sampler.Group, store *snapshot.Store) (*zero, error) {
	c := w.cluster
	z := &zero{store: store, exporter: promexport.NewLookouts(), every: map[queue.BrokerRef]time.Duration{}}
	var err error
	if z.scales, err = scale.New(c.config, c.fleets); err != nil {
		return nil, err
	}
	if z.elector, err = leader.New(c.clients.CoordinationV1(), o.Namespace, o.Identity, o.Log, c.registry); err != nil {
		return nil, err
	}
	if z.journal, err = journal.New(c.clients.CoreV1(), z.elector, o.Log, c.registry); err != nil {
		return nil, err
	}
	z.memory = &zeroscaler.Memory{
		Metrics: metrics, Fleets: c.fleets, Fresh: fresh{group, w, store}, Every: z.interval, Now: time.Now,
	}
	z.lookouts = lookout.NewGroup(z, z.exporter, o.Log)
	z.scaler = zeroscaler.New(zeroscaler.Parts{
		Scales: z.scales, Senses: z.memory, Journal: z.journal,
		Leads: z.elector.Leads, Turns: zeroscaler.NewTurns(), Now: time.Now,
	}, c.targets, z.lookouts, group)
	z.elector.Notify(z.scaler.Led)
	c.fleets.Notify(func(ref fleet.Ref) { z.scaler.Resized(ref.Namespace, ref.Name) })
	c.keeper.OnlyWhile(z.elector.Leads)
	c.keeper.GuardZero(registration.Guard{
		Targets: c.all(), Resources: z.scales, Self: registration.OwnName(c.clients.AuthenticationV1()),
	})
	if z.looks, err = admission.NewLooks(z, c.all(), z.scales, o.Log, c.registry); err != nil {
		return nil, err
	}
	return z, c.registry.Register(z.exporter)
}

// Waiting implements lookout.Sink: what has arrived is known before anybody is told.
func (z *zero) Waiting(ref queue.BrokerRef, counts map[string]queue.Count) {
	z.store.PutBacklogs(ref, counts)
	z.scaler.Waiting(ref, counts)
}

// Look implements admission.Looker.
func (z *zero) Look(ctx context.Context, t target.Target) idle.Observation {
	seen, err := z.scales.Get(ctx, t)
	if err != nil {
		return idle.Observation{QueuesErr: fmt.Errorf("the scale of %s: %w", t, err)}
	}
	return z.memory.Look(ctx, t, seen)
}

// interval is the time from one sample of a broker to the next.
func (z *zero) interval(ref queue.BrokerRef) time.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.every[ref]
}

// apply watches queues of these brokers from now on.
func (z *zero) apply(ctx context.Context, found []brokers.Broker) {
	specs := make([]lookout.Spec, 0, len(found))
	every := map[queue.BrokerRef]time.Duration{}
	for _, b := range found {
		specs = append(specs, lookoutOf(b))
		every[b.Ref()] = b.Spec.Sampling.Interval.Duration
	}
	z.mu.Lock()
	z.every = every
	z.mu.Unlock()
	z.lookouts.Apply(ctx, specs)
}

// pace tells a broker's loop when samples are of less use, and listens to it.
func (z *zero) pace(spec *sampler.Spec, ref queue.BrokerRef) {
	spec.Sampled = func() { z.scaler.Sampled(ref) }
	spec.Rest = func() bool { return z.lookouts.Covers(ref) && z.scaler.Rests(ref) }
}

// start runs what is to run for as long as ctx goes on.
func (z *zero) start(ctx context.Context, running *errgroup.Group) {
	running.Go(func() error { return z.elector.Run(ctx) })
	running.Go(func() error { return z.journal.Run(ctx) })
	running.Go(func() error { return z.scaler.Run(ctx) })
}

// webhooks are the handlers that the API server asks, by path.
func (z *zero) webhooks() map[string]http.Handler {
	return map[string]http.Handler{
		admission.ZeroPath:   admission.NewZero(z.looks, z.journal),
		admission.NoticePath: admission.NewNotice(z.looks),
	}
}

// fresh makes what is known of brokers and workers fresh.
type fresh struct {
	group *sampler.Group
	force *workforce
	store *snapshot.Store
}

// Sample implements zeroscaler.Fresh. A broker of which a part could not be read has
// not been read.
func (f fresh) Sample(ctx context.Context, ref queue.BrokerRef) error {
	if err := f.group.Fresh(ctx, ref); err != nil {
		return err
	}
	b, ok := f.store.Broker(ref)
	if !ok {
		return errors.New("it is no longer sampled")
	}
	return b.Degraded()
}

// Ask implements zeroscaler.Fresh.
func (f fresh) Ask(ctx context.Context, workers fleet.Fleet) error {
	return f.force.ask(ctx, workers)
}
