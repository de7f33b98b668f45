package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground/internal/history"
	"github.com/celery-hpa/celery-hpa/hack/progress"
	"github.com/celery-hpa/celery-hpa/hack/setup"
)

// Options of a playground. The zero value is that of the demo.
type Options struct {
	// Output receives the progress; nil discards it.
	Output io.Writer
	// Broker is what the tasks go through; empty: Redis.
	Broker Broker
	// Workers says how they are run.
	Workers Fleet
	// MaxReplicas bounds their number; 0: 5.
	MaxReplicas int
	// HPASyncPeriod is how often the HPA looks at its metrics; 0: 3 s instead of
	// Kubernetes' 15 s, so that there is something to see.
	HPASyncPeriod time.Duration
	// DownscaleStabilization is for how long the HPA remembers higher proposals;
	// 0: 10 s instead of Kubernetes' 5 min.
	DownscaleStabilization time.Duration
	// OldWorld is Kubernetes before 1.37, whose HPA cannot go to zero: the feature
	// gate HPAScaleToZero is off.
	OldWorld bool
	// Replicas is how many processes of celery-hpa run; 0: 1. They listen on one port:
	// whoever connects gets one of those that are up.
	Replicas int
}

// What a playground always is.
const (
	// SystemNamespace is where celery-hpa itself is, as in the manifests.
	SystemNamespace = "celery-hpa"
	// Namespace is where the broker, the workers, their HPA and the CeleryBroker are.
	Namespace = "demo"
	// Workers is the name of the Deployment or StatefulSet of workers and of its HPA.
	Workers = "worker"
	// Queue is the queue that the HPA scales on.
	Queue = "celery"
	// Concurrency is how many tasks a worker executes at once, and the HPA's target,
	// where Options.Workers says nothing else.
	Concurrency = 2
)

// nodeStopGrace is what the processes get to end when the playground stops. No
// task matters any more by then.
const nodeStopGrace = 2 * time.Second

// Playground is a running installation. Its methods are safe for concurrent use.
type Playground struct {
	Cluster *localkube.Cluster
	Node    *procnode.Node

	clients  kubernetes.Interface
	progress *progress.Printer
	history  *history.History
	layout   layout
	undo     []func() error // last in, first out
}

// Start builds what is missing and starts everything. It blocks until one worker
// runs and the HPA can read its metric. Whether it succeeds or fails, Stop must
// be called on what it returns, which is never nil.
func Start(ctx context.Context, options Options) (*Playground, error) {
	p := &Playground{progress: progress.New(options.Output)}
	steps := []func(context.Context, Options) error{
		p.prepare, p.buildBinary, p.startCluster, p.startNode, p.startBroker, p.install, p.watchReplicas, p.await,
	}
	for _, step := range steps {
		if err := step(ctx, options); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Stop ends every process that Start has started and removes its files. It
// blocks until all are gone, a few seconds, and heeds no context: there is no
// stopping halfway.
func (p *Playground) Stop() error {
	var errs []error
	for _, undo := range slices.Backward(p.undo) {
		errs = append(errs, undo())
	}
	p.undo = nil
	return errors.Join(errs...)
}

// Address is the URL of celery-hpa itself, past the aggregator. Its certificate
// is signed by the cluster's authority.
func (p *Playground) Address() string { return fmt.Sprintf("https://127.0.0.1:%d", p.layout.Port) }

// Broker is the kind of broker that runs.
func (p *Playground) Broker() Broker { return p.layout.Broker }

// prepare makes the folder with the files of the playground.
func (p *Playground) prepare(_ context.Context, options Options) error {
	python, err := setup.Python()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "celery-hpa-playground-")
	if err != nil {
		return fmt.Errorf("make a folder for the playground: %w", err)
	}
	p.undo = append(p.undo, func() error { return os.RemoveAll(dir) })
	p.layout, err = newLayout(dir, python, options)
	return err
}

func (p *Playground) startCluster(ctx context.Context, options Options) error {
	cluster, err := localkube.Start(ctx, localkube.Options{
		Output:                 options.Output,
		HPASyncPeriod:          orDefault(options.HPASyncPeriod, 3*time.Second),
		DownscaleStabilization: orDefault(options.DownscaleStabilization, 10*time.Second),
		FeatureGates:           featureGates(options.OldWorld),
	})
	if err != nil {
		return err
	}
	p.Cluster = cluster
	p.undo = append(p.undo, cluster.Stop)
	p.clients, err = kubernetes.NewForConfig(cluster.RESTConfig())
	return err
}

// featureGates leaves them as Kubernetes has them in the new world.
func featureGates(oldWorld bool) map[string]bool {
	if !oldWorld {
		return nil
	}
	return map[string]bool{"HPAScaleToZero": false}
}

func (p *Playground) startNode(ctx context.Context, options Options) error {
	node, err := procnode.New(procnode.Options{
		Config:    p.Cluster.RESTConfig(),
		LogDir:    filepath.Join(p.layout.Dir, "pods"),
		Output:    options.Output,
		StopGrace: nodeStopGrace,
	})
	if err != nil {
		return err
	}
	p.Node = node
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends in Stop, not with Start
	stopped := make(chan error, 1)
	go func() { stopped <- node.Run(ctx) }()
	p.undo = append(p.undo, func() error {
		stop()
		return <-stopped
	})
	return nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
