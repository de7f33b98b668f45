package admission_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// patience bounds every wait; none depends on its length.
const patience = 90 * time.Second

const (
	configurationName = "celery-hpa"
	hpaUser           = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
	ourUser           = "system:serviceaccount:celery-hpa:celery-hpa"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is one control plane and celery-hpa's watch of HPAs for all rules: each has a
// namespace of its own.
type fixture struct {
	cluster   *localkube.Cluster
	admin     kubernetes.Interface
	hpa, ours *scaler // with the rights of the HPA controller, and of celery-hpa
	person    *scaler
	clients   kubernetes.Interface // with the rights of celery-hpa
	targets   *target.Watcher
	celeryHPA *celeryHPA

	mu         sync.Mutex
	namespaces []string
}

func TestAdmission(t *testing.T) {
	f := newFixture(t)
	t.Run("rights", f.testRights)
	t.Run("at first", f.testAtFirst)
	t.Run("registration", f.testRegistration)
	f.celeryHPA = f.newCeleryHPA(t)
	f.register(t, f.celeryHPA.url())
	f.keep(t, f.targets, f.targets)
	t.Run("autoscalers", f.testAutoscalers)
	t.Run("people", f.testPeople)
	t.Run("without celery-hpa", f.testWithout)
	f.checkConditionsEvaluate(t)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	cluster, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{cluster: cluster}
	if f.admin, err = kubernetes.NewForConfig(cluster.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	rights, err := playground.Rights()
	if err != nil {
		t.Fatal(err)
	}
	f.apply(t, string(rights)+"---"+kinds)
	f.person = f.newScaler(t, "jane", "system:masters")
	f.hpa = f.newScaler(t, hpaUser, "system:serviceaccounts", "system:serviceaccounts:kube-system")
	f.ours = f.newScaler(t, ourUser, "system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	f.clients = f.ours.clients
	f.targets = target.NewWatcher(f.clients, logger(t))
	run(t, f.targets.Run)
	return f
}

// kinds are two that others have brought into the cluster, and what gives celery-hpa the
// right to scale the first.
const kinds = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: deployments.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: deployments, singular: deployment, kind: Deployment}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: scale-things, labels: {rbac.celery-hpa.io/aggregate-to-scale: "true"}}
rules:
- {apiGroups: [example.org], resources: [things/scale], verbs: [get, patch]}
`

// resources knows the kind that the cluster has besides those of Kubernetes.
type resources struct{}

func (resources) Resource(t target.Target) (schema.GroupResource, error) {
	if t.APIVersion == "example.org/v1" && t.Kind == "Thing" {
		return schema.GroupResource{Group: "example.org", Resource: "things"}, nil
	}
	return schema.GroupResource{}, errors.New("there is no kind " + t.Kind)
}

// keep runs what has the API server ask about targets.
func (f *fixture) keep(t *testing.T, known registration.KnownTargets, zero zeroTargets) {
	t.Helper()
	keeper := registration.NewKeeper(f.clients.AdmissionregistrationV1(), known, logger(t))
	keeper.GuardZero(registration.Guard{Targets: zero, Resources: resources{}, Self: registration.OwnName(f.clients.AuthenticationV1())})
	run(t, keeper.Run)
}

type zeroTargets interface {
	OptedIn() []target.Target
	Synced() bool
}

// register applies what is shipped, for a server at another address.
func (f *fixture) register(t *testing.T, url string) {
	t.Helper()
	text, err := playground.Webhooks()
	if err != nil {
		t.Fatal(err)
	}
	var object admissionregistrationv1.ValidatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Fatal(err)
	}
	for i := range object.Webhooks {
		client := &object.Webhooks[i].ClientConfig
		client.URL, client.Service, client.CABundle = new(url+*client.Service.Path), nil, f.cluster.CABundle()
	}
	text, err = yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	f.apply(t, "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\n"+string(text))
	t.Cleanup(func() { f.unregister(t) })
}

func (f *fixture) unregister(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	objects := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if err := objects.Delete(ctx, configurationName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// checkConditionsEvaluate asks the API server whether a match condition of ours was
// ever without a result. It counts only errors, so that none have no series.
func (f *fixture) checkConditionsEvaluate(t *testing.T) {
	for line := range strings.Lines(f.kubectl(t, "get", "--raw", "/metrics")) {
		if strings.HasPrefix(line, "apiserver_admission_match_condition_evaluation_errors_total") {
			t.Errorf("conditions could not be evaluated: %s", line)
		}
	}
}

// run runs a part of celery-hpa until the test ends.
func run(t *testing.T, part func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- part(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// namespace makes a namespace, whose HPAs are watched from now on.
func (f *fixture) namespace(t *testing.T) string {
	t.Helper()
	space, err := f.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "rule-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.namespaces = append(f.namespaces, space.Name)
	f.targets.Watch(f.namespaces)
	return space.Name
}

// apply applies documents. The kinds among them that are new may not be served yet.
func (f *fixture) apply(t *testing.T, documents string) {
	t.Helper()
	if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(documents), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := f.cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// workload is an object with a number of replicas.
type workload struct {
	Namespace, APIVersion, Kind, Resource, Name string
}

// The kinds of workloads.
func deployment(namespace, name string) workload {
	return workload{namespace, "apps/v1", "Deployment", "deployments", name}
}

func statefulSet(namespace, name string) workload {
	return workload{namespace, "apps/v1", "StatefulSet", "statefulsets", name}
}

func thing(namespace, name string) workload {
	return workload{namespace, "example.org/v1", "Thing", "things", name}
}

// imposter is a Deployment that is none of Kubernetes'.
func imposter(namespace, name string) workload {
	return workload{namespace, "example.org/v1", "Deployment", "deployments", name}
}

func (w workload) String() string { return w.Kind + " " + w.Namespace + "/" + w.Name }

func (w workload) path() string {
	return "/apis/" + w.APIVersion + "/namespaces/" + w.Namespace + "/" + w.Resource + "/" + w.Name
}

// arg names the workload to kubectl.
func (w workload) arg() string {
	group, _, _ := strings.Cut(w.APIVersion, "/")
	return w.Resource + "." + group + "/" + w.Name
}

// document is the workload with so many replicas. Its pods are never scheduled: there
// is no node.
func (w workload) document(replicas int) string {
	return fmt.Sprintf(`---
apiVersion: %s
kind: %s
metadata: {name: %s, namespace: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: %[3]s}}
  template:
    metadata: {labels: {app: %[3]s}}
    spec: {containers: [{name: worker, image: none}]}
`, w.APIVersion, w.Kind, w.Name, w.Namespace, replicas)
}

// hpaDocument is an HPA of the workload with these annotations.
func (w workload) hpaDocument(annotations string) string {
	return fmt.Sprintf(`---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[3]s-%[5]s, namespace: %[4]s, annotations: {%[6]s}}
spec:
  scaleTargetRef: {apiVersion: %[1]s, kind: %[2]s, name: %[3]s}
  maxReplicas: 20
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: celery}}}, target: {type: AverageValue, averageValue: "1"}}
`, w.APIVersion, w.Kind, w.Name, w.Namespace, strings.ToLower(w.Kind), annotations)
}

// hpaName is that of hpaDocument.
func (w workload) hpaName() string { return w.Name + "-" + strings.ToLower(w.Kind) }

const optIn = `celery-hpa.io/scale-to-zero: "true"`
