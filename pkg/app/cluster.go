package app

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// cluster is all that watches a cluster and writes to it.
type cluster struct {
	config    *rest.Config
	clients   kubernetes.Interface
	objects   dynamic.Interface
	fleets    *fleet.Watcher
	targets   *target.Watcher
	victims   *admission.Victims
	keeper    *registration.Keeper
	protector *drain.Protector
	registry  *prometheus.Registry
	known     *atomic.Bool // whether all namespaces to watch are
}

// allTargets are those of every namespace that has a broker. None is missing only once
// all brokers are known: else each start of celery-hpa would have the webhooks forget
// every target for a moment.
type allTargets struct {
	*target.Watcher
	known *atomic.Bool
}

// Synced tells whether no target is missing.
func (a allTargets) Synced() bool { return a.known.Load() && a.Watcher.Synced() }

func newCluster(o Options, heard *workers.Store) (*cluster, error) {
	config, err := o.Server.ClientConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server itself says when it has too much to do
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	c := &cluster{
		config: config, clients: clients, objects: objects,
		fleets:   fleet.NewWatcher(clients, heard, o.Log),
		targets:  target.NewWatcher(clients, o.Log),
		registry: prometheus.NewRegistry(), known: &atomic.Bool{},
	}
	c.keeper = registration.NewKeeper(clients.AdmissionregistrationV1(), c.all(), o.Log)
	c.protector = drain.NewProtector(clients.CoreV1(), c.fleets, c.targets, o.Log)
	c.victims, err = admission.NewVictims(c.fleets, c.targets, drain.NewMarker(clients.CoreV1()), o.Log, c.registry)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := c.registry.Register(promexport.NewTargets(c.targets, c.fleets)); err != nil {
		return nil, fmt.Errorf("register the metrics of targets: %w", err)
	}
	return c, nil
}

func (c *cluster) all() allTargets { return allTargets{c.targets, c.known} }

// watch makes these the namespaces that are watched. Known tells whether none is missing.
func (c *cluster) watch(ctx context.Context, namespaces []string, known bool) {
	c.fleets.Watch(ctx, namespaces)
	c.targets.Watch(namespaces)
	if known {
		c.known.Store(true)
	}
}

// start runs what is to run for as long as ctx goes on.
func (c *cluster) start(ctx context.Context, running *errgroup.Group) {
	running.Go(func() error { return c.targets.Run(ctx) })
	running.Go(func() error { return c.keeper.Run(ctx) })
	running.Go(func() error { return c.protector.Run(ctx) })
}

// webhooks are the handlers that the API server asks, by path.
func (c *cluster) webhooks() map[string]http.Handler {
	return map[string]http.Handler{admission.VictimsPath: c.victims}
}
