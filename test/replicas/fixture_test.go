package replicas_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/deploy"
	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// patience bounds every wait for a state. Only a failing test waits that long.
	patience = 60 * time.Second
	// syncPeriod is the HPA's: a third of what it is by default, so that more of them fall
	// into the time in which a replica is gone.
	syncPeriod = 5 * time.Second

	system  = "celery-hpa" // the namespace of celery-hpa
	space   = "demo"       // that of all HPAs
	hpaUser = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
)

// fixture is a control plane that knows celery-hpa by an entrance, and a broker.
type fixture struct {
	test       *testing.T // the whole of it
	cluster    *localkube.Cluster
	clients    kubernetes.Interface
	hpa        kubernetes.Interface // with the rights of the HPA controller
	kubeconfig string               // of celery-hpa
	flags      []string             // those of the manifests
	entrance   *entrance
	redis      *servers.Redis
	auditLog   string
	random     *rand.Rand
	all        []*replica // that were started
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	folder := t.TempDir()
	f := &fixture{
		test:     t,
		auditLog: filepath.Join(folder, "audit.log"),
		random:   rand.New(rand.NewPCG(seed, 0)),
		redis:    servers.StartRedis(t, servers.RedisOptions{}),
	}
	f.entrance = openEntrance(t, rand.New(rand.NewPCG(seed, 1)))
	policy := filepath.Join(folder, "audit.yaml")
	check(t, os.WriteFile(policy, []byte(auditPolicy), 0o600))
	var err error
	f.cluster, err = localkube.Start(t.Context(), localkube.Options{
		Output: os.Stdout, HPASyncPeriod: syncPeriod, DownscaleStabilization: time.Second,
		APIServerArgs: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + f.auditLog},
	})
	check(t, err)
	t.Cleanup(func() { check(t, f.cluster.Stop()) })
	f.connect(t)
	f.install(t)
	return f
}

func (f *fixture) connect(t *testing.T) {
	t.Helper()
	var err error
	f.clients, err = kubernetes.NewForConfig(f.cluster.RESTConfig())
	check(t, err)
	config, err := f.cluster.ConfigFor(hpaUser, groups("kube-system")...)
	check(t, err)
	f.hpa, err = kubernetes.NewForConfig(config)
	check(t, err)
	f.kubeconfig, err = f.cluster.KubeconfigFor("system:serviceaccount:"+system+":celery-hpa", groups(system)...)
	check(t, err)
}

// groups are those of the service accounts of a namespace.
func groups(namespace string) []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace}
}

// install applies what an administrator does, but for the pods.
func (f *fixture) install(t *testing.T) {
	t.Helper()
	rights, err := playground.Rights()
	check(t, err)
	f.apply(t, string(rights)) // which make the namespace of celery-hpa
	f.apply(t, string(deploy.CustomResources()))
	f.kubectl(t, "wait", "--for=condition=Established", "crd/celerybrokers.celery-hpa.io", "--timeout=60s")
	f.kubectl(t, "create", "namespace", space)
	check(t, f.cluster.AggregateExternalMetrics(t.Context(), system, "celery-hpa", f.entrance.port(), nil))
	text, err := playground.Webhooks()
	check(t, err)
	var object admissionregistrationv1.ValidatingWebhookConfiguration
	check(t, yaml.UnmarshalStrict(text, &object))
	for i := range object.Webhooks {
		object.Webhooks[i].ClientConfig.Service.Port = new(f.entrance.port())
	}
	_, err = f.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &object, metav1.CreateOptions{})
	check(t, err)
	f.flags = shippedFlags(t)
}

// shippedFlags are those that the manifests give celery-hpa.
func shippedFlags(t *testing.T) []string {
	t.Helper()
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(deploy.Install()), 4096)
	for {
		var object appsv1.Deployment
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			t.Fatal("the manifests have no Deployment")
		}
		check(t, err)
		if object.Kind == "Deployment" {
			return object.Spec.Template.Spec.Containers[0].Args
		}
	}
}

// build builds the program as it is shipped, but for what flags of go build say.
func build(t *testing.T, version string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "celery-hpa")
	args := append([]string{"build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w -X main.version=" + version, "-o", program}, flags...)
	cmd := exec.Command("go", append(args, "github.com/celery-hpa/celery-hpa/cmd/celery-hpa")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build celery-hpa: %v: %s", err, out)
	}
	return program
}

// declare makes a CeleryBroker of these queues.
func (f *fixture) declare(t *testing.T, queues []string) {
	t.Helper()
	f.apply(t, fmt.Sprintf("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: redis, namespace: %s}\n"+
		"spec: {url: {value: %q}, queues: [{name: %s}]}\n", space, f.redis.URL(0), strings.Join(queues, "}, {name: ")))
}

// autoscale makes a Deployment of some size, which has no pods since there is no node, and an
// HPA that scales it on the queue of its name.
func (f *fixture) autoscale(t *testing.T, name string, replicas int, toZero bool) {
	t.Helper()
	f.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: demo}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[1]s, namespace: demo, annotations: {celery-hpa.io/scale-to-zero: "%[3]t"}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 5
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: %[1]s}}}, target: {type: AverageValue, averageValue: "2"}}
`, name, replicas, toZero))
}

// lease is the one by which a replica leads.
func (f *fixture) lease(t *testing.T) coordinationv1.LeaseSpec {
	t.Helper()
	found, err := f.clients.CoordinationV1().Leases(system).Get(t.Context(), "celery-hpa", metav1.GetOptions{})
	check(t, err)
	return found.Spec
}

// leads tells whether a process of a replica holds the lease, the one of now, if there is
// one.
func (r *replica) leads(lease coordinationv1.LeaseSpec) bool {
	return lease.HolderIdentity != nil && strings.HasPrefix(*lease.HolderIdentity, r.pod+"_") &&
		strings.Contains(r.log.String(), *lease.HolderIdentity)
}

// awaitLeader blocks until one of these leads, and says which.
func (f *fixture) awaitLeader(t *testing.T, replicas ...*replica) *replica {
	t.Helper()
	var found *replica
	eventually.Succeeds(t, patience, "one of the replicas leads", func() error {
		lease := f.lease(t)
		for _, r := range replicas {
			if r.leads(lease) {
				found = r
				return nil
			}
		}
		return fmt.Errorf("the lease is %+v", lease)
	})
	return found
}

func (f *fixture) apply(t *testing.T, documents string) {
	t.Helper()
	_, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(documents), "apply", "-f", "-")
	check(t, err)
}

func (f *fixture) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := f.cluster.Kubectl(t.Context(), args...)
	check(t, err)
	return string(out)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
