package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/celery-hpa/celery-hpa/pkg/act/brokerstatus"
	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/act/unserved"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver/delegate"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// Options are all that can be chosen about an App.
type Options struct {
	// BrokersFile holds CeleryBroker documents. Empty: none but those of the cluster.
	BrokersFile string
	// Local serves plain HTTP on Listen, without a cluster, instead of what
	// Server says.
	Local  bool
	Listen string
	// Server says where and for which cluster the aggregated API is served.
	Server *apiserver.Options
	// Namespace is that of celery-hpa itself, where its Lease is; Identity tells this
	// replica from the others, like the name of its pod. Both without meaning for
	// Local.
	Namespace, Identity string
	// Certificates say which Secret holds the serving certificate, if any does; without
	// meaning for Local. The namespace is filled in.
	Certificates certificates.Options
	// Delegate is another server of external metrics, which is asked for those that are
	// not ours. Without meaning for Local.
	Delegate delegate.Options
	// Version is the program's own, shown in a metric.
	Version string
	Log     *slog.Logger
}

// App is a celery-hpa that is ready to run. Make it with New.
type App struct {
	log      *slog.Logger
	store    *snapshot.Store
	exporter *promexport.Exporter
	group    *sampler.Group
	workers  *workforce
	provider *externalmetrics.Provider
	zero     *zero                // nil without a cluster
	finder   *unserved.Finder     // nil without a cluster
	keeper   *certificates.Keeper // nil where the serving certificate is not ours to keep
	other    *delegate.Provider   // nil where nothing is passed on to another server
	sources  *sources
	applied  atomic.Pointer[time.Time] // since when all brokers are declared, nil before
	server   *apiserver.Server
}

// New reads the brokers file, and the serving certificate where that is kept in a
// Secret, and opens the server's socket. It asks no broker yet. Its error lists
// everything that is wrong with the file.
func New(ctx context.Context, o Options) (*App, error) {
	store := snapshot.New()
	exporter := promexport.New(store, time.Now)
	a := &App{
		log:      o.Log,
		store:    store,
		exporter: exporter,
		group:    sampler.NewGroup(store, exporter, o.Log),
	}
	var err error
	if a.workers, err = newWorkforce(o); err != nil {
		return nil, err
	}
	if a.sources, err = newSources(o, a.workers.cluster); err != nil {
		return nil, err
	}
	a.provider = externalmetrics.New(a.store, a.workers.fleetReader(), time.Now)
	if !o.Local {
		if a.zero, err = newZero(o, a.workers, a.provider, a.group, store); err != nil {
			return nil, err
		}
		a.finder = unserved.New(a.workers.cluster.clients.AutoscalingV2(), a.serves, a.zero.journal, o.Log)
		a.provider.TellUnserved(a.finder.Asked)
		if err := a.keepCertificate(ctx, o); err != nil {
			return nil, err
		}
	}
	a.server, err = a.newServer(ctx, o)
	return a, err
}

// Addr is the address that the app serves on.
func (a *App) Addr() net.Addr { return a.server.Addr() }

// Run samples and serves until ctx is done, or until a part fails. It blocks
// until every part has stopped: the server first, and then what it answers from.
func (a *App) Run(ctx context.Context) error {
	whole, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	running, parts := errgroup.WithContext(whole)
	a.sources.start(parts, running, a.apply)
	running.Go(func() error {
		defer stop()
		return a.serve(ctx, parts)
	})
	running.Go(func() error {
		select {
		case <-ctx.Done():
		case <-parts.Done():
		}
		a.log.Info("Stopping")
		return nil
	})
	if a.workers.cluster != nil {
		a.workers.cluster.start(parts, running)
		a.zero.start(parts, running)
		status := a.newStatusWriter()
		running.Go(func() error { return status.Run(parts) })
		running.Go(func() error { return a.finder.Run(parts) })
	}
	if a.other != nil {
		running.Go(func() error { return a.other.Run(parts) })
	}
	if a.keeper != nil {
		running.Go(func() error { return a.keeper.Run(parts) })
	}
	err := running.Wait()
	a.group.Wait()
	if a.zero != nil {
		a.zero.lookouts.Wait()
	}
	a.workers.wait()
	a.log.Info("Stopped")
	return err
}

// serve serves until ctx is done, or until a part fails.
func (a *App) serve(ctx, parts context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(parts, stop)()
	a.log.Info("Serving the external metrics API", "address", a.Addr().String())
	if err := a.server.Run(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// serves tells whether a namespace has a broker, of whatever state, if all are known.
func (a *App) serves(namespace string) (served, known bool) {
	known = a.applied.Load() != nil // before the brokers: then none is missing
	return len(a.store.Namespace(namespace)) > 0, known
}

// apply makes the group sample these brokers, and hears their workers. Known tells
// whether none is missing.
func (a *App) apply(ctx context.Context, found []brokers.Broker, known bool) {
	specs := make([]sampler.Spec, 0, len(found))
	for _, b := range found {
		spec := specOf(b, a.workers.heard) //nolint:contextcheck // opening a driver does no I/O that could be given up
		if a.zero != nil {
			a.zero.pace(&spec, b.Ref())
		}
		specs = append(specs, spec)
	}
	a.workers.apply(ctx, found, known)
	if a.zero != nil {
		a.zero.apply(ctx, found)
	}
	a.group.Apply(ctx, specs)
	if known {
		now := time.Now()
		a.applied.CompareAndSwap(nil, &now)
	}
	a.log.Info("Sampling the brokers", "brokers", len(specs))
}

func (a *App) newStatusWriter() *brokerstatus.Writer {
	c := a.workers.cluster
	return brokerstatus.New(c.objects, a.sources.resources, a.store, a.workers.heard.Fault, a.zero.lookouts.Untold, a.zero.elector.Leads, a.log)
}

// keepCertificate has the server serve with the certificate of a Secret, if one is named.
func (a *App) keepCertificate(ctx context.Context, o Options) error {
	if o.Certificates.Secret == "" {
		return nil
	}
	o.Certificates.Namespace = o.Namespace
	c := a.workers.cluster
	var err error
	a.keeper, err = certificates.NewKeeper(c.config, o.Certificates, a.zero.elector.Leads, o.Log, c.registry)
	if err != nil {
		return err
	}
	a.keeper.Prepare(ctx)
	o.Server.Certificate = a.keeper
	return nil
}

func (a *App) newServer(ctx context.Context, o Options) (*apiserver.Server, error) {
	registry := prometheus.NewRegistry()
	for _, c := range append(OfProcess(o.Version, a.sources.file), a.exporter, a.workers.exporter) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	content := apiserver.Content{
		Provider: a.provider,
		Ready:    func() error { return a.sources.isReady(a.ready) },
		Alive:    a.group.Alive,
	}
	if o.Local {
		content.Metrics = metricsHandler(registry)
		return apiserver.NewLocal(ctx, o.Listen, content)
	}
	if o.Delegate.URL != "" {
		var err error
		if a.other, err = delegate.New(a.workers.cluster.config, o.Delegate, a.provider, o.Log); err != nil {
			return nil, err
		}
		content.Provider = a.other
	}
	content.Metrics = metricsHandler(registry, a.workers.cluster.registry)
	content.Webhooks = a.workers.cluster.webhooks()
	maps.Copy(content.Webhooks, a.zero.webhooks())
	content.Pages = map[string]http.Handler{journal.Path: a.zero.journal}
	if a.keeper != nil {
		content.Certified = a.keeper.Ready
	}
	return apiserver.NewSecure(o.Server, content)
}

// metricsHandler serves our metrics and those that the API server library, the
// Go runtime and the process keep in the library's registry.
func metricsHandler(ours ...prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(append(prometheus.Gatherers(ours), legacyregistry.DefaultGatherer), promhttp.HandlerOpts{})
}
