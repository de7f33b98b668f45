package scaledown_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// patience bounds every wait; none depends on its length.
const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is one control plane, one node, and celery-hpa's watch of HPAs, for all
// rules: each has a namespace of its own.
type fixture struct {
	cluster *localkube.Cluster
	admin   kubernetes.Interface
	ours    kubernetes.Interface // with the rights of celery-hpa
	targets *target.Watcher
	fleets  *fleets
	webhook *webhook // from testVictims on

	mu         sync.Mutex
	namespaces []string
}

func TestScaleDown(t *testing.T) {
	f := newFixture(t)
	t.Run("HPAs", f.testTargets)
	t.Run("costs", f.testMarker)
	t.Run("node autoscalers", f.testProtector)
	t.Run("configuration", f.testConfiguration)
	t.Run("victims", f.testVictims)
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
	f := &fixture{cluster: cluster, fleets: &fleets{known: map[fleet.Ref]fleet.Fleet{}}}
	if f.admin, err = kubernetes.NewForConfig(cluster.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	f.grant(t)
	node, err := procnode.New(procnode.Options{Config: cluster.RESTConfig(), LogDir: t.TempDir(), Output: t.Output(), StopGrace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	run(t, node.Run)
	f.targets = target.NewWatcher(f.ours, logger(t))
	run(t, f.targets.Run)
	return f
}

// grant gives celery-hpa's service account what the manifests give it.
func (f *fixture) grant(t *testing.T) {
	t.Helper()
	rights, err := playground.Rights()
	if err != nil {
		t.Fatal(err)
	}
	f.apply(t, string(rights))
	config, err := f.cluster.ConfigFor("system:serviceaccount:celery-hpa:celery-hpa",
		"system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	if err != nil {
		t.Fatal(err)
	}
	if f.ours, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
}

// run runs a part of the program until the test ends, and waits for it.
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

func logger(t *testing.T) *slog.Logger { return testLogger(t.Output()) }

func testLogger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
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

func (f *fixture) apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
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

// pods are those of an app that are not being deleted, sorted by name.
func (f *fixture) pods(t *testing.T, namespace, app string) []corev1.Pod {
	t.Helper()
	list, err := f.admin.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// awaitPods waits until an app has that many pods, all ready, and returns them.
func (f *fixture) awaitPods(t *testing.T, namespace, app string, n int) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	eventually.Succeeds(t, patience, fmt.Sprintf("%d pods of %s are ready", n, app), func() error {
		pods = f.pods(t, namespace, app)
		ready := 0
		for _, p := range pods {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
		}
		if len(pods) != n || ready != n {
			return fmt.Errorf("%d pods, %d of them ready", len(pods), ready)
		}
		return nil
	})
	return pods
}

// observe says what is known of the pods of a fleet: the named ones are busy, all
// others idle.
func observe(ref fleet.Ref, pods []corev1.Pod, busy ...string) fleet.Fleet {
	f := fleet.Fleet{Ref: ref, Heard: true}
	for _, p := range pods {
		m := fleet.Member{
			Pod: p.Name, UID: p.UID, Ordinal: -1, Ready: true, State: fleet.Idle,
			Active: queue.Known(0, time.Now()), Annotations: p.Annotations,
		}
		if slices.Contains(busy, p.Name) {
			m.State, m.Active = fleet.Busy, queue.Known(1, time.Now())
		}
		f.Members = append(f.Members, m)
	}
	return f
}

func deploymentRef(namespace, name string) fleet.Ref {
	return fleet.Ref{Namespace: namespace, Kind: fleet.Deployment, Name: name}
}

// fleets are what the test knows of workers: who is busy is what it decides.
type fleets struct {
	mu    sync.Mutex
	known map[fleet.Ref]fleet.Fleet
}

func (f *fleets) set(observed fleet.Fleet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[observed.Ref] = observed
}

func (f *fleets) Fleet(ref fleet.Ref) (fleet.Fleet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.known[ref]
	if !ok {
		return fleet.Fleet{}, fleet.ErrNoFleet
	}
	return known, nil
}

func deployment(namespace, name string, replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      containers: [{name: worker, image: none, command: [sleep, "3600"]}]
`, namespace, name, replicas)
}

func hpa(namespace, name, scaled, metric string) string {
	return fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %s, namespace: %s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %s}
  maxReplicas: 20
  metrics:
  - type: External
    external: {metric: {name: %s}, target: {type: AverageValue, averageValue: "1"}}
`, name, namespace, scaled, metric)
}
