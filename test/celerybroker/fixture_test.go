package celerybroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/deploy"
	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokerresource"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// patience bounds every wait for a state. Only a failing test waits that long.
	patience = 60 * time.Second
	// longPatience is that for what takes half a minute in good order: as long a right that
	// was granted is not used.
	longPatience = 2 * time.Minute
	// space is the namespace of every CeleryBroker here.
	space  = "airflow"
	system = "celery-hpa"
)

// cluster is a control plane that knows CeleryBrokers.
type cluster struct {
	*localkube.Cluster
	clients kubernetes.Interface
	objects dynamic.Interface
	binary  string // celery-hpa
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	kube, err := localkube.Start(t.Context(), localkube.Options{Output: os.Stdout, HPASyncPeriod: 2 * time.Second})
	check(t, err)
	t.Cleanup(func() {
		if err := kube.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Cluster: kube, binary: filepath.Join(t.TempDir(), "celery-hpa")}
	if out, err := exec.Command("go", "build", "-o", c.binary, "github.com/celery-hpa/celery-hpa/cmd/celery-hpa").CombinedOutput(); err != nil {
		t.Fatalf("build celery-hpa: %v: %s", err, out)
	}
	c.clients, err = kubernetes.NewForConfig(kube.RESTConfig())
	check(t, err)
	c.objects, err = dynamic.NewForConfig(kube.RESTConfig())
	check(t, err)
	rights, err := playground.Rights()
	check(t, err)
	c.apply(t, string(rights)) // which make the namespace of celery-hpa
	c.apply(t, string(deploy.CustomResources()))
	c.kubectl(t, "wait", "--for=condition=Established", "crd/celerybrokers.celery-hpa.io", "--timeout=60s")
	c.kubectl(t, "create", "namespace", space)
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) apply(t *testing.T, text string) {
	t.Helper()
	_, err := c.KubectlInput(t.Context(), strings.NewReader(text), "apply", "--validate=strict", "-f", "-")
	check(t, err)
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	check(t, err)
	return string(out)
}

// create makes a CeleryBroker of a spec in YAML's flow style, and returns what the API
// server says against it.
func (c *cluster) create(ctx context.Context, name, spec string) error {
	text := fmt.Sprintf("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: %s, namespace: %s}\nspec: {%s}", name, space, spec)
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		return err
	}
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	_, err := c.objects.Resource(brokerresource.Resource()).Namespace(space).Create(ctx, &object, options)
	return err
}

func (c *cluster) get(t *testing.T, name string) v1alpha1.CeleryBroker {
	t.Helper()
	object, err := c.objects.Resource(brokerresource.Resource()).Namespace(space).Get(t.Context(), name, metav1.GetOptions{})
	check(t, err)
	var b v1alpha1.CeleryBroker
	check(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &b))
	return b
}

// awaitReady blocks until a CeleryBroker's condition Ready has a reason and a message that
// holds a text.
func (c *cluster) awaitReady(t *testing.T, name, reason, text string) v1alpha1.CeleryBroker {
	t.Helper()
	var b v1alpha1.CeleryBroker
	eventually.Succeeds(t, patience, name+" is "+reason, func() error {
		b = c.get(t, name)
		for _, ready := range b.Status.Conditions {
			if ready.Type == v1alpha1.ConditionReady && ready.Reason == reason && strings.Contains(ready.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%s is %+v, want reason %s and %q", name, b.Status.Conditions, reason, text)
	})
	return b
}

// program is a process of celery-hpa, which the API server knows as the server of external
// metrics.
type program struct {
	cluster *cluster
	log     *servers.Transcript
}

// run runs celery-hpa without a brokers file, or with one of that content, until the test
// ends. It returns when the API server has reached it.
func (c *cluster) run(t *testing.T, brokersFile string) *program {
	t.Helper()
	dir := t.TempDir()
	user := "system:serviceaccount:" + system + ":celery-hpa"
	kubeconfig, err := c.KubeconfigFor(user, "system:serviceaccounts", "system:serviceaccounts:"+system)
	check(t, err)
	cert, key, err := c.ServingCert("celery-hpa." + system + ".svc")
	check(t, err)
	port := strconv.Itoa(servers.FreePort(t))
	args := []string{"serve", "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", port}
	for name, content := range map[string][]byte{"tls-cert-file": cert, "tls-private-key-file": key, "brokers-file": []byte(brokersFile)} {
		if len(content) == 0 {
			continue
		}
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		args = append(args, "--"+name, filepath.Join(dir, name))
	}
	p := &program{cluster: c, log: &servers.Transcript{}}
	cmd := exec.Command(c.binary, args...)
	cmd.Stderr = p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("celery-hpa ended with %v", err)
		}
		if t.Failed() {
			t.Logf("celery-hpa has said:\n%s", p.log)
		}
	})
	var number int32
	_, err = fmt.Sscan(port, &number)
	check(t, err)
	check(t, c.AggregateExternalMetrics(t.Context(), system, "celery-hpa", number, c.CABundle()))
	check(t, c.AwaitExternalMetrics(t.Context()))
	return p
}

// backlog is celery_queue_backlog of a queue as an HPA reads it, one value for each
// broker that knows the queue.
func (p *program) backlog(ctx context.Context, queue string) ([]string, error) {
	path := fmt.Sprintf("/apis/external.metrics.k8s.io/v1beta1/namespaces/%s/celery_queue_backlog?labelSelector=queue%%3D%s", space, queue)
	out, err := p.cluster.Kubectl(ctx, "get", "--raw", path)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Value string `json:"value"`
		} `json:"items"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	var values []string
	for _, item := range list.Items {
		values = append(values, item.Value)
	}
	return values, nil
}

// awaitBacklog blocks until a queue has that backlog at the one broker that has it.
func (p *program) awaitBacklog(t *testing.T, queue, want string) {
	t.Helper()
	eventually.Succeeds(t, patience, "the backlog of "+queue+" is "+want, func() error {
		got, err := p.backlog(t.Context(), queue)
		if err != nil {
			return err
		}
		if len(got) != 1 || got[0] != want {
			return fmt.Errorf("the backlog of %s is %v, want %s", queue, got, want)
		}
		return nil
	})
}
