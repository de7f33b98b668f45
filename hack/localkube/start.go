package localkube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/component"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/pki"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/port"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/process"
	"github.com/celery-hpa/celery-hpa/hack/progress"
)

const (
	// readyTimeout is far above what a machine of two cores needs (5 s), for
	// those that are busy with something else.
	readyTimeout = 2 * time.Minute
	// pollInterval is how often a component is asked whether it is ready.
	pollInterval = 50 * time.Millisecond
)

// Start provides the binaries (see binaries.Ensure: the first time, that takes
// minutes), starts a control plane on free ports of 127.0.0.1 and blocks until it
// is ready: the API server says so, the namespaces default and kube-system exist,
// and the controllers run. ctx bounds the start alone. After an error nothing is
// left behind; otherwise the caller must call Stop.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	bin, err := binaries.Ensure(ctx, options.Output)
	if err != nil {
		return nil, err
	}
	step := progress.New(options.Output).Start("starting the local control plane")
	cluster, err := startFrom(ctx, bin, options)
	step.Done(err)
	if err != nil {
		return nil, fmt.Errorf("start the local control plane: %w", err)
	}
	return cluster, nil
}

func startFrom(ctx context.Context, bin string, options Options) (*Cluster, error) {
	cluster, err := prepare(bin, options)
	if err != nil {
		return nil, err
	}
	if err := cluster.run(ctx, options); err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return cluster, nil
}

// prepare makes everything but the processes.
func prepare(bin string, options Options) (_ *Cluster, err error) {
	c := &Cluster{bin: bin, supervisor: component.NewSupervisor()}
	c.stop = sync.OnceValue(c.release)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := c.makeFolder(options.Dir); err != nil {
		return nil, err
	}
	if err := c.reservePorts(); err != nil {
		return nil, err
	}
	return c, c.makeCredentials(options.NodeAddress)
}

func (c *Cluster) makeFolder(dir string) (err error) {
	c.layout.dir = dir
	if dir != "" {
		return nil
	}
	c.layout.dir, err = os.MkdirTemp("", "celery-hpa-localkube-")
	if err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	c.janitor, err = process.StartJanitor(c.layout.dir)
	if err != nil {
		return errors.Join(err, os.Remove(c.layout.dir))
	}
	return nil
}

func (c *Cluster) reservePorts() error {
	for _, number := range []*int{&c.layout.etcdPort, &c.layout.apiServerPort, &c.layout.managerPort} {
		reserved, err := port.Reserve()
		if err != nil {
			return err
		}
		c.ports = append(c.ports, reserved)
		*number = reserved.Number()
	}
	return nil
}

func (c *Cluster) makeCredentials(address string) (err error) {
	if c.ca, err = pki.NewAuthority("localkube"); err != nil {
		return err
	}
	if err := writeCredentials(c.layout.dir, c.ca, address); err != nil {
		return err
	}
	if c.config, err = c.ConfigFor(adminUser, adminGroup); err != nil {
		return err
	}
	manager, err := c.ConfigFor(managerUser)
	if err != nil {
		return err
	}
	return errors.Join(
		writeKubeconfig(c.layout.path(adminKubeconfig), c.config),
		writeKubeconfig(c.layout.path(managerKubeconfig), manager),
	)
}

// run starts the components and waits until each is ready. The API server waits
// for etcd by itself; the controller manager would give up too early.
func (c *Cluster) run(ctx context.Context, options Options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %s", readyTimeout))
	defer cancel()
	if err := c.Launch(c.bin, "etcd", c.layout.etcdFlags()); err != nil {
		return err
	}
	if err := c.Launch(c.bin, "kube-apiserver", c.layout.apiServerFlags(options)); err != nil {
		return err
	}
	if err := c.awaitAPIServer(ctx); err != nil {
		return fmt.Errorf("wait for kube-apiserver: %w", err)
	}
	if err := c.Launch(c.bin, "kube-controller-manager", c.layout.managerFlags(options)); err != nil {
		return err
	}
	if err := c.awaitManager(ctx); err != nil {
		return fmt.Errorf("wait for kube-controller-manager: %w", err)
	}
	return nil
}

// Launch runs one more program, of that name in the folder bin, as a component of the
// cluster: its output is in NAME.log in Dir, where it runs; Done and Err tell of its
// end; Stop stops it, before those that were started earlier. It does not wait for it
// to be ready.
func (c *Cluster) Launch(bin, name string, args []string) error {
	running, err := component.Start(bin, c.layout.dir, name, args)
	if err != nil {
		return err
	}
	c.started.add(running)
	c.supervisor.Watch(running)
	return nil
}

// Restart ends a component with SIGTERM and starts it again, with the same arguments. It
// does not wait for it to be ready.
func (c *Cluster) Restart(name string) error {
	return c.started.replace(name, func(old *component.Component) (*component.Component, error) {
		running, err := old.Restart()
		if err != nil {
			return nil, err
		}
		c.supervisor.Watch(running)
		return running, nil
	})
}

func (c *Cluster) awaitAPIServer(ctx context.Context) error {
	if err := c.awaitOK(ctx, c.layout.apiServerURL()+"/readyz"); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	// The API server makes its namespaces only after it has called itself ready.
	return c.poll(ctx, func(ctx context.Context) error {
		for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
			_, err := clients.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("get namespace %s: %w", name, err)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Cluster) awaitManager(ctx context.Context) error {
	return c.awaitOK(ctx, c.layout.managerURL()+"/healthz")
}

// awaitOK waits until a GET of url is answered with 200.
func (c *Cluster) awaitOK(ctx context.Context, url string) error {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.CloseIdleConnections()
	return c.poll(ctx, func(ctx context.Context) error { return getOK(ctx, client, url) })
}

func getOK(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// poll repeats attempt until it succeeds, a component dies, or ctx ends; then it
// returns the reason with the last failure.
func (c *Cluster) poll(ctx context.Context, attempt func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-c.Done():
			return c.Err()
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), err)
		}
	}
}

// release stops what was started, in reverse order, and gives back the rest.
func (c *Cluster) release() error {
	c.supervisor.ExpectEnd()
	var errs []error
	for _, running := range slices.Backward(c.started.list()) {
		errs = append(errs, running.Stop())
	}
	c.supervisor.Wait()
	for _, reserved := range c.ports {
		errs = append(errs, reserved.Release())
	}
	if c.janitor != nil {
		errs = append(errs, c.janitor.Clean())
	}
	return errors.Join(errs...)
}

// components in the order in which they were started. It is safe for concurrent use.
type components struct {
	mu      sync.Mutex
	started []*component.Component
}

func (c *components) add(running *component.Component) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = append(c.started, running)
}

// replace puts what by returns in the place of the component of that name.
func (c *components) replace(name string, by func(*component.Component) (*component.Component, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, old := range c.started {
		if old.Name() != name {
			continue
		}
		replacement, err := by(old)
		if err == nil {
			c.started[n] = replacement
		}
		return err
	}
	return fmt.Errorf("no component is called %s", name)
}

func (c *components) list() []*component.Component {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.started)
}
