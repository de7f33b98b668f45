package realcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
	"github.com/celery-hpa/celery-hpa/hack/progress"
)

// Addresses inside the enclosure, where there are no others.
const (
	nodeName    = "node"
	nodeAddress = "10.89.0.1"
	podCIDR     = "10.89.1.0/24"
)

const (
	// readyTimeout is far above what a machine of two cores needs, for those that are
	// busy with something else.
	readyTimeout = 2 * time.Minute
	pollInterval = 100 * time.Millisecond
)

// Options of a cluster.
type Options struct {
	// Dir is an existing folder for everything that the cluster writes; it is the
	// caller's to remove.
	Dir string
	// Output receives the progress of starting; nil discards it.
	Output io.Writer
	// HPASyncPeriod is how often the HPA looks at its metrics; zero stands for
	// Kubernetes' default of 15 s.
	HPASyncPeriod time.Duration
}

// Cluster is a running control plane with its one node, which has the images of build.sh:
// localhost/celery-hpa:test, the same as an earlier version with the tag previous, and
// localhost/celery:test with Celery and Redis. They are never pulled.
type Cluster struct {
	*localkube.Cluster
	bin string
	dir string
}

// Start starts a cluster and blocks until its node is ready. ctx bounds the start alone.
// After an error nothing runs; otherwise the caller must call Stop, after all pods are
// gone: containers that still run end with the enclosure alone.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	cache, err := binaries.CacheDir()
	if err != nil {
		return nil, err
	}
	parts := filepath.Join(cache, "realcluster")
	if err := makeNetwork(ctx); err != nil {
		return nil, err
	}
	control, err := localkube.Start(ctx, localkube.Options{
		Dir: options.Dir, Output: options.Output, NodeAddress: nodeAddress, HPASyncPeriod: options.HPASyncPeriod,
	})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Cluster: control, bin: filepath.Join(parts, "bin"), dir: options.Dir}
	step := progress.New(options.Output).Start("starting the node")
	err = c.startNode(ctx, filepath.Join(parts, "images"))
	step.Done(err)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the node: %w", err), c.Stop())
	}
	return c, nil
}

// makeNetwork gives the node its address, on a bridge to which nothing belongs, and the
// route by which it reaches the addresses of services.
func makeNetwork(ctx context.Context) error {
	for _, args := range []string{
		"link set lo up",
		"link add node0 type bridge",
		"address add " + nodeAddress + "/24 dev node0",
		"link set node0 up",
		"route add default dev node0",
	} {
		if _, err := run(ctx, "ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("forward between pods: %w", err)
	}
	return nil
}

func (c *Cluster) startNode(ctx context.Context, images string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %s", readyTimeout))
	defer cancel()
	if err := c.configure(); err != nil {
		return err
	}
	if err := c.startContainerd(ctx, images); err != nil {
		return err
	}
	if err := c.launchNode(); err != nil {
		return err
	}
	return c.poll(ctx, c.nodeReady)
}

func (c *Cluster) configure() error {
	proxy, err := c.KubeconfigFor("system:kube-proxy")
	if err != nil {
		return err
	}
	s := settings{Dir: c.dir, Node: nodeName, PodCIDR: podCIDR, CAFile: c.CAFile(), ProxyKubeconfig: proxy}
	if err := s.write(); err != nil {
		return err
	}
	// No name server: Kubernetes' own would be the cluster's DNS.
	if err := os.WriteFile(c.path("resolv.conf"), nil, 0o644); err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	return nil
}

func (c *Cluster) startContainerd(ctx context.Context, images string) error {
	if err := c.Launch(c.bin, "containerd", []string{"--config=" + c.path("containerd.toml")}); err != nil {
		return err
	}
	err := c.poll(ctx, func(ctx context.Context) error {
		_, err := c.ctr(ctx, "version")
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	archives, err := filepath.Glob(filepath.Join(images, "*.tar"))
	if err != nil {
		return fmt.Errorf("look for images: %w", err)
	}
	for _, archive := range archives {
		if _, err := c.ctr(ctx, "--namespace=k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) launchNode() error {
	scheduler, err := c.KubeconfigFor("system:kube-scheduler")
	if err != nil {
		return err
	}
	kubelet, err := c.KubeconfigFor("system:node:"+nodeName, "system:nodes")
	if err != nil {
		return err
	}
	return errors.Join(
		c.Launch(c.bin, "kube-scheduler", []string{
			"--kubeconfig=" + scheduler, "--authentication-kubeconfig=" + scheduler,
			"--authorization-kubeconfig=" + scheduler, "--leader-elect=false", "--bind-address=127.0.0.1",
		}),
		c.Launch(c.bin, "kubelet", []string{
			"--config=" + c.path("kubelet.yaml"), "--kubeconfig=" + kubelet, "--hostname-override=" + nodeName,
			"--node-ip=" + nodeAddress, "--root-dir=" + c.path("kubelet"), "--cert-dir=" + c.path("kubelet-certificates"),
		}),
		c.Launch(c.bin, "kube-proxy", []string{"--config=" + c.path("kube-proxy.yaml")}),
	)
}

func (c *Cluster) nodeReady(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	node, err := clients.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the node: %w", err)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the node is not ready: %v", node.Status.Conditions)
}

// poll repeats attempt until it succeeds, a component dies, or ctx ends; then it
// returns the reason with the last failure.
func (c *Cluster) poll(ctx context.Context, attempt func(context.Context) error) error {
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-c.Done():
			return c.Err()
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), err)
		}
	}
}

// ctr asks containerd.
func (c *Cluster) ctr(ctx context.Context, args ...string) (string, error) {
	return run(ctx, filepath.Join(c.bin, "ctr"), append([]string{"--address=" + c.path("containerd.sock")}, args...)...)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// run is what a command prints; an error holds all that it printed.
func run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
