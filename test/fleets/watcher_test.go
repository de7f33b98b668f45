package fleets_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
)

const (
	namespace = "airflow"
	patience  = 30 * time.Second
	// longPatience is that for what takes several steps, or real workers.
	longPatience = 4 * patience
)

// hosts stands in for what was heard: the workers by host.
type hosts struct {
	mu    sync.Mutex
	heard map[string][]workers.Worker
}

func (h *hosts) OnHost(in, host string) []workers.Worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	if in != namespace {
		return nil
	}
	return h.heard[host]
}

func (h *hosts) say(host string, active int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard[host] = []workers.Worker{{
		Node: "celery@" + host, Host: host, HeardAt: time.Now(), Frequency: time.Hour, Active: celery.Number{N: active, Known: true},
	}}
}

// world is an API server with its controllers, and a watcher of one namespace.
type world struct {
	config  *rest.Config
	clients kubernetes.Interface
	hosts   *hosts
	watcher *fleet.Watcher
	changes *changes
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster, err := localkube.Start(t.Context(), localkube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Errorf("stop the control plane: %v", err)
		}
	})
	clients, err := kubernetes.NewForConfig(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{config: cluster.RESTConfig(), clients: clients, hosts: &hosts{heard: map[string][]workers.Worker{}}, changes: &changes{seen: map[fleet.Ref][]string{}}}
	w.watcher = fleet.NewWatcher(clients, w.hosts, slog.New(slog.NewTextHandler(io.Discard, nil)))
	w.watcher.Notify(func(ref fleet.Ref) { w.changes.note(ref, w.watcher) })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		w.watcher.Wait()
	})
	if _, err := clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.watcher.Watch(ctx, []string{namespace})
	return w
}

func template() (*metav1.LabelSelector, corev1.PodTemplateSpec) {
	labels := map[string]string{"app": "worker"}
	return &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "worker", Image: "worker"}}},
	}
}

func (w *world) deploy(t *testing.T, name string, replicas int32) fleet.Ref {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}}
	d.Spec.Replicas = &replicas
	d.Spec.Selector, d.Spec.Template = template()
	if _, err := w.clients.AppsV1().Deployments(namespace).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return fleet.Ref{Namespace: namespace, Kind: fleet.Deployment, Name: name}
}

func (w *world) deploySet(t *testing.T, name string, replicas, start int32) fleet.Ref {
	t.Helper()
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.Spec = appsv1.StatefulSetSpec{
		Replicas: &replicas, PodManagementPolicy: appsv1.ParallelPodManagement, Ordinals: &appsv1.StatefulSetOrdinals{Start: start},
	}
	s.Spec.Selector, s.Spec.Template = template()
	if _, err := w.clients.AppsV1().StatefulSets(namespace).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return fleet.Ref{Namespace: namespace, Kind: fleet.StatefulSet, Name: name}
}

// await blocks until a fleet is as wanted and returns it.
func (w *world) await(t *testing.T, ref fleet.Ref, what string, reached func(fleet.Fleet) bool) fleet.Fleet {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		f, err := w.watcher.Fleet(ref)
		if err == nil && reached(f) {
			return f
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s: %+v, %v", patience, what, f, err)
		}
	}
}

func (w *world) setStatus(t *testing.T, pod string, change func(*corev1.PodStatus)) {
	t.Helper()
	pods := w.clients.CoreV1().Pods(namespace)
	p, err := pods.Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	change(&p.Status)
	if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func makeReady(s *corev1.PodStatus) {
	s.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
}

func states(f fleet.Fleet) string {
	var all []string
	for _, m := range f.Members {
		all = append(all, m.State.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestWatcher(t *testing.T) {
	w := newWorld(t)
	t.Run("a Deployment's pods are joined with its workers", w.testDeployment)
	t.Run("a StatefulSet's pods have ordinals from its first one", w.testOrdinals)
	t.Run("a restarted container ends what was heard before", w.testRestart)
	t.Run("the scale is that of the scale subresource", w.testScale)
	t.Run("changes of a scale are told, and no others", w.testNotify)
	t.Run("nothing is told before all is known, and everything then", w.testKnown)
	t.Run("pods may be chosen by a selector", w.testSelected)
	t.Run("a selector of all pods is none", w.testUnselected)
	t.Run("what is not there, or not watched, is an error", w.testErrors)
	t.Run("who is told may look while a watch ends", w.testLeave)
}

func (w *world) testDeployment(t *testing.T) {
	ref := w.deploy(t, "worker-a", 3)
	other := w.deploy(t, "worker", 1) // whose name is the beginning of the first one's
	f := w.await(t, ref, "three pods", func(f fleet.Fleet) bool { return len(f.Members) == 3 })
	if got := states(f); got != "starting starting starting" || f.Heard {
		t.Errorf("pods that are not ready are %q, heard %t", got, f.Heard)
	}
	if slices.ContainsFunc(w.watcher.Fleets(namespace), func(f fleet.Fleet) bool { return f.Ref == ref }) {
		t.Error("a fleet is listed although no worker was heard")
	}
	for _, m := range f.Members {
		w.setStatus(t, m.Pod, makeReady)
	}
	w.hosts.say(f.Members[0].Pod, 0)
	w.hosts.say(f.Members[1].Pod, 2)
	f = w.await(t, ref, "ready pods", func(f fleet.Fleet) bool { return states(f) == "busy idle unknown" })
	if !f.Heard || f.Members[1].Active.N != 2 || !f.Members[2].Ready {
		t.Errorf("fleet is %+v", f)
	}
	if f := w.await(t, other, "its pod", func(f fleet.Fleet) bool { return len(f.Members) == 1 }); f.Heard {
		t.Errorf("the workers of %s were taken for those of %s", ref, other)
	}
	if err := w.clients.CoreV1().Pods(namespace).Delete(t.Context(), f.Members[1].Pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await(t, ref, "the pod to be replaced", func(now fleet.Fleet) bool {
		return len(now.Members) == 3 && !slices.ContainsFunc(now.Members, func(m fleet.Member) bool { return m.Pod == f.Members[1].Pod })
	})
}

func (w *world) testOrdinals(t *testing.T) {
	ref := w.deploySet(t, "airflow-worker", 3, 5)
	f := w.await(t, ref, "three pods", func(f fleet.Fleet) bool { return len(f.Members) == 3 })
	got := ""
	for _, m := range f.Members {
		got += fmt.Sprintf("%s=%d ", m.Pod, m.Ordinal)
	}
	if want := "airflow-worker-5=0 airflow-worker-6=1 airflow-worker-7=2 "; got != want {
		t.Errorf("ordinals %q, want %q", got, want)
	}
}

func (w *world) testRestart(t *testing.T) {
	ref := w.deploy(t, "restarted", 1)
	f := w.await(t, ref, "its pod", func(f fleet.Fleet) bool { return len(f.Members) == 1 })
	pod := f.Members[0].Pod
	w.setStatus(t, pod, makeReady)
	w.hosts.say(pod, 1)
	w.await(t, ref, "a busy worker", func(f fleet.Fleet) bool { return states(f) == "busy" })
	w.setStatus(t, pod, func(s *corev1.PodStatus) {
		s.ContainerStatuses = []corev1.ContainerStatus{{Name: "worker", RestartCount: 1, Image: "worker", ImageID: "1"}}
	})
	w.await(t, ref, "the end of what was heard", func(f fleet.Fleet) bool { return states(f) == "unknown" })
	w.hosts.say(pod, 0)
	w.await(t, ref, "the new process", func(f fleet.Fleet) bool { return states(f) == "idle" })
}

func (w *world) testErrors(t *testing.T) {
	_, err := w.watcher.Fleet(fleet.Ref{Namespace: namespace, Kind: fleet.Deployment, Name: "missing"})
	if !errors.Is(err, fleet.ErrNoFleet) {
		t.Errorf("a Deployment that is not there: %v", err)
	}
	_, err = w.watcher.Fleet(fleet.Ref{Namespace: "elsewhere", Kind: fleet.Deployment, Name: "worker"})
	if !errors.Is(err, fleet.ErrNotWatched) {
		t.Errorf("a namespace that is not watched: %v", err)
	}
	for _, kind := range []fleet.Kind{fleet.Deployment, fleet.StatefulSet, fleet.Pods, "Rollout"} {
		if s, err := w.watcher.Scale(fleet.Ref{Namespace: namespace, Kind: kind, Name: "missing"}); !errors.Is(err, fleet.ErrNoFleet) {
			t.Errorf("the scale of a %s that is not there: %+v, %v", kind, s, err)
		}
	}
	if _, err := w.watcher.Scale(fleet.Ref{Namespace: "elsewhere", Kind: fleet.Deployment, Name: "worker"}); !errors.Is(err, fleet.ErrNotWatched) {
		t.Errorf("the scale in a namespace that is not watched: %v", err)
	}
	if _, err := w.watcher.Selected("elsewhere", labels.SelectorFromSet(labels.Set{"app": "worker"})); !errors.Is(err, fleet.ErrNotWatched) {
		t.Errorf("the pods of a namespace that is not watched: %v", err)
	}
	if w.watcher.HasHost(namespace, "nobody") || !w.watcher.HasHost("elsewhere", "nobody") {
		t.Error("a host is missing only where the pods are known")
	}
}
