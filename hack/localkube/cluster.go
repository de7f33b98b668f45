package localkube

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/component"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/pki"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/port"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/process"
)

// Options of a cluster. The zero value is a cluster as Kubernetes ships it.
type Options struct {
	// Dir is the folder for data, credentials and logs; it must exist and is
	// kept. Empty stands for a temporary folder, removed with the cluster.
	Dir string
	// Output receives the progress of building and starting; nil discards it.
	Output io.Writer
	// HPASyncPeriod is how often the HPA looks at its metrics; zero stands for
	// Kubernetes' default of 15 s.
	HPASyncPeriod time.Duration
	// DownscaleStabilization is for how long the HPA remembers higher proposals
	// before it scales down; zero stands for Kubernetes' default of 5 min.
	DownscaleStabilization time.Duration
	// FeatureGates are set on API server and controller manager alike.
	FeatureGates map[string]bool
	// APIServerArgs are appended to the flags of kube-apiserver.
	APIServerArgs []string
	// ControllerManagerArgs are appended to the flags of
	// kube-controller-manager.
	ControllerManagerArgs []string
	// NodeAddress is an IPv4 address of this machine under which nodes and pods with
	// a network of their own reach the API server. It makes the control plane one
	// for a real node (see Launch): it listens on all addresses, all controllers run,
	// pods have service accounts, and the service "kubernetes" leads to it. Empty
	// stands for loopback alone.
	NodeAddress string
}

// Cluster is a running control plane. Its methods are safe for concurrent use.
type Cluster struct {
	bin    string
	layout layout
	ca     *pki.Authority
	config *rest.Config

	supervisor *component.Supervisor
	started    components
	ports      []*port.Reservation
	janitor    *process.Janitor // nil if the folder is the caller's
	stop       func() error
}

// Stop ends the control plane and what Launch has started, last started first and
// etcd last, waits until the processes are gone, and removes its folder if that was temporary. It takes a
// second or two; calls after the first return what the first did.
func (c *Cluster) Stop() error { return c.stop() }

// Done is closed when a component has ended that was not asked to, and by Stop.
func (c *Cluster) Done() <-chan struct{} { return c.supervisor.Done() }

// Err says which component ended unasked, with the end of its log. It is nil
// while all run and after an orderly Stop.
func (c *Cluster) Err() error { return c.supervisor.Err() }

// BinDir is the folder of etcd, kube-apiserver, kube-controller-manager and
// kubectl.
func (c *Cluster) BinDir() string { return c.bin }

// Dir is the folder of the cluster's data, credentials and logs
// (kube-apiserver.log and so on).
func (c *Cluster) Dir() string { return c.layout.dir }

// Kubeconfig is the path of a kubeconfig file that may do everything. It exists
// until Stop.
func (c *Cluster) Kubeconfig() string { return c.layout.path(adminKubeconfig) }

// RESTConfig is a client's configuration that may do everything, without a limit
// to the rate of requests. It is the caller's to change.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// CABundle is the PEM-encoded certificate of the cluster's authority: what to
// trust to reach the API server, and what signs ServingCert.
func (c *Cluster) CABundle() []byte { return bytes.Clone(c.ca.Cert()) }

// CAFile is the path of a file with CABundle. It exists until Stop.
func (c *Cluster) CAFile() string { return c.layout.path(caFile) }

// ServingCert makes a certificate for a server that the cluster is to reach, such
// as an aggregated API server or a webhook, for these names or addresses and for
// localhost and 127.0.0.1. It is trusted with CABundle. Both are PEM-encoded.
func (c *Cluster) ServingCert(hosts ...string) (cert, key []byte, err error) {
	pair, err := c.ca.Server(append([]string{"localhost", "127.0.0.1"}, hosts...)...)
	return pair.Cert, pair.Key, err
}

// ConfigFor is a client's configuration for another user, known to RBAC by this
// name and these groups. "system:serviceaccount:NAMESPACE:NAME", in the groups
// "system:serviceaccounts" and "system:serviceaccounts:NAMESPACE", has the rights
// of that service account.
func (c *Cluster) ConfigFor(user string, groups ...string) (*rest.Config, error) {
	return clientConfig(c.layout.apiServerURL(), c.ca, user, groups...)
}

// KubeconfigFor writes what ConfigFor returns to a kubeconfig file and returns its
// path. The file exists until Stop.
func (c *Cluster) KubeconfigFor(user string, groups ...string) (string, error) {
	config, err := c.ConfigFor(user, groups...)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(c.layout.dir, "user-*.kubeconfig")
	if err != nil {
		return "", fmt.Errorf("make a kubeconfig for %s: %w", user, err)
	}
	if err := file.Close(); err != nil {
		return "", fmt.Errorf("make a kubeconfig for %s: %w", user, err)
	}
	return file.Name(), writeKubeconfig(file.Name(), config)
}

// Kubectl runs the cluster's kubectl as a user who may do everything and returns
// what it printed to its standard output; an error holds its standard error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) ([]byte, error) {
	return c.KubectlInput(ctx, nil, args...)
}

// KubectlInput is Kubectl with a standard input, for "apply -f -".
func (c *Cluster) KubectlInput(ctx context.Context, input io.Reader, args ...string) ([]byte, error) {
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), args...)
	// Neither the user's kubectl preferences nor his discovery cache play a part.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "KUBERC=off", "KUBECACHEDIR="+c.layout.path("kubectl-cache"))
	cmd.Stdin, cmd.Stderr = input, &complaint
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}
