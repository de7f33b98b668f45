package fleets_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// changes are the scales that were seen when changes were told, as "REPLICAS/PODS", or
// "gone".
type changes struct {
	mu   sync.Mutex
	seen map[fleet.Ref][]string
}

func (c *changes) note(ref fleet.Ref, w *fleet.Watcher) {
	scale, err := w.Scale(ref)
	said := fmt.Sprintf("%d/%d", scale.Replicas, scale.Pods)
	if errors.Is(err, fleet.ErrNoFleet) {
		said = "gone"
	} else if err != nil {
		said = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[ref] = append(c.seen[ref], said)
}

func (c *changes) of(ref fleet.Ref) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen[ref])
}

// subresource is the scale as the API server has it.
func (w *world) subresource(t *testing.T, ref fleet.Ref) *autoscalingv1.Scale {
	t.Helper()
	get := w.clients.AppsV1().Deployments(namespace).GetScale
	if ref.Kind == fleet.StatefulSet {
		get = w.clients.AppsV1().StatefulSets(namespace).GetScale
	}
	s, err := get(t.Context(), ref.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scaleTo writes the scale, unless somebody has since it was seen.
func (w *world) scaleTo(t *testing.T, ref fleet.Ref, seen fleet.Scale, replicas int32) error {
	t.Helper()
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: ref.Name, UID: seen.UID, ResourceVersion: seen.ResourceVersion}}
	s.Spec.Replicas = replicas
	update := w.clients.AppsV1().Deployments(namespace).UpdateScale
	if ref.Kind == fleet.StatefulSet {
		update = w.clients.AppsV1().StatefulSets(namespace).UpdateScale
	}
	_, err := update(t.Context(), ref.Name, s, metav1.UpdateOptions{})
	return err
}

func (w *world) testScale(t *testing.T) {
	for _, ref := range []fleet.Ref{w.deploy(t, "scaled", 2), w.deploySet(t, "scaled-set", 2, 0)} {
		var got fleet.Scale
		eventually.Holds(t, longPatience, "the scale of "+ref.String(), func() bool {
			var err error
			got, err = w.watcher.Scale(ref)
			s := w.subresource(t, ref)
			want := fleet.Scale{Replicas: 2, Pods: 2, Selector: s.Status.Selector, UID: s.UID, ResourceVersion: s.ResourceVersion}
			return err == nil && got == want && got.Selector == "app=worker"
		})
		if err := w.scaleTo(t, ref, got, 0); err != nil {
			t.Errorf("%s cannot be scaled by what was seen of it: %v", ref, err)
		}
		eventually.Holds(t, longPatience, "the pods to go", func() bool {
			now, err := w.watcher.Scale(ref)
			return err == nil && now.Replicas == 0 && now.Pods == 0 && now.ResourceVersion != got.ResourceVersion
		})
	}
}

func (w *world) testNotify(t *testing.T) {
	ref := w.deploy(t, "told", 1)
	eventually.Holds(t, longPatience, "the pod to be told of", func() bool { return slices.Contains(w.changes.of(ref), "1/1") })
	before := len(w.changes.of(ref))
	patch := []byte(`{"metadata": {"annotations": {"note": "nothing of the scale"}}}`)
	_, err := w.clients.AppsV1().Deployments(namespace).Patch(t.Context(), ref.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually.Holds(t, longPatience, "the annotation to be seen", func() bool {
		s, err := w.watcher.Scale(ref)
		return err == nil && s.ResourceVersion == w.subresource(t, ref).ResourceVersion
	})
	later := w.deploy(t, "told-later", 0)
	eventually.Holds(t, longPatience, "what came after the annotation", func() bool { return len(w.changes.of(later)) > 0 })
	if told := w.changes.of(ref); len(told) != before {
		t.Errorf("of an annotation it was told: %v", told[before:])
	}
	if err := w.clients.AppsV1().Deployments(namespace).Delete(t.Context(), ref.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually.Holds(t, longPatience, "the end to be told", func() bool {
		told := w.changes.of(ref)
		return told[len(told)-1] == "gone"
	})
}

// gate lets requests for pods pass once deployments have been answered.
type gate struct {
	http.RoundTripper
	answered chan struct{}
	once     sync.Once
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/pods") {
		select {
		case <-g.answered:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	answer, err := g.RoundTripper.RoundTrip(r)
	if strings.HasSuffix(r.URL.Path, "/deployments") {
		g.once.Do(func() { close(g.answered) })
	}
	return answer, err
}

// testKnown has the pods be known last.
func (w *world) testKnown(t *testing.T) {
	ref := w.deploy(t, "known", 0)
	config := rest.CopyConfig(w.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &gate{RoundTripper: next, answered: make(chan struct{})}
	})
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watcher, told := fleet.NewWatcher(clients, w.hosts, slog.New(slog.NewTextHandler(io.Discard, nil))), &changes{seen: map[fleet.Ref][]string{}}
	watcher.Notify(func(ref fleet.Ref) { told.note(ref, watcher) })
	watcher.Watch(ctx, []string{namespace})
	eventually.Holds(t, longPatience, "the Deployment to be told of", func() bool { return len(told.of(ref)) > 0 })
	if of := strings.Join(told.of(ref), " "); strings.Contains(of, "not known") {
		t.Errorf("it was told before all was known: %s", of)
	}
	cancel()
	watcher.Wait()
}

// bare makes a pod that belongs to nobody.
func (w *world) bare(t *testing.T, name string, of map[string]string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: of}}
	p.Spec.Containers = []corev1.Container{{Name: "worker", Image: "worker"}}
	if _, err := w.clients.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) testSelected(t *testing.T) {
	w.bare(t, "rollout-1", map[string]string{"app": "rollout", "track": "stable"})
	w.bare(t, "rollout-2", map[string]string{"app": "rollout", "track": "canary"})
	w.bare(t, "rollout-3", map[string]string{"app": "rollout", "track": "old"})
	w.bare(t, "rollout-ended", map[string]string{"app": "rollout", "track": "stable"})
	w.setStatus(t, "rollout-ended", func(s *corev1.PodStatus) { s.Phase = corev1.PodSucceeded })
	w.setStatus(t, "rollout-1", makeReady)
	w.hosts.say("rollout-1", 0)
	selector, err := labels.Parse("app=rollout,track in (stable,canary)")
	if err != nil {
		t.Fatal(err)
	}
	var f fleet.Fleet
	eventually.Holds(t, longPatience, "the pods", func() bool {
		f, err = w.watcher.Selected(namespace, selector)
		return err == nil && states(f) == "idle starting"
	})
	var got []string
	for _, m := range f.Members {
		got = append(got, fmt.Sprintf("%s on %s, ordinal %d", m.Pod, m.Host, m.Ordinal))
	}
	if diff := cmp.Diff([]string{"rollout-1 on rollout-1, ordinal -1", "rollout-2 on rollout-2, ordinal -1"}, got); diff != "" || !f.Heard {
		t.Errorf("heard %t, members (-want +got):\n%s", f.Heard, diff)
	}
	if want := "Pods airflow/app=rollout,track in (canary,stable)"; f.String() != want {
		t.Errorf("the fleet is called %q, want %q", f, want)
	}
	if err := w.clients.CoreV1().Pods(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=rollout"}); err != nil {
		t.Fatal(err)
	}
	eventually.Holds(t, longPatience, "the pods to be gone", func() bool {
		f, err = w.watcher.Selected(namespace, selector)
		return err == nil && len(f.Members) == 0
	})
	if !f.Heard {
		t.Error("once the pods are gone it is forgotten that these were workers")
	}
}

func (w *world) testUnselected(t *testing.T) {
	f, err := w.watcher.Selected(namespace, labels.SelectorFromSet(labels.Set{"app": "nothing"}))
	if err != nil || f.Heard || len(f.Members) != 0 {
		t.Errorf("a selector of no pod gives %+v, %v", f, err)
	}
	for what, none := range map[string]labels.Selector{"everything": labels.Everything(), "nothing": labels.Nothing(), "nil": nil} {
		if f, err := w.watcher.Selected(namespace, none); !errors.Is(err, fleet.ErrNoFleet) {
			t.Errorf("the selector of %s gives %d pods, %v; want an error", what, len(f.Members), err)
		}
	}
}

// testLeave has a watch end while who is told of a change looks until it has.
func (w *world) testLeave(t *testing.T) {
	ref := w.deploy(t, "left", 0)
	watcher := fleet.NewWatcher(w.clients, w.hosts, slog.New(slog.NewTextHandler(io.Discard, nil)))
	told := make(chan fleet.Ref, 1)
	watcher.Notify(func(ref fleet.Ref) {
		select {
		case told <- ref:
		default:
		}
		for t.Context().Err() == nil {
			if _, err := watcher.Scale(ref); errors.Is(err, fleet.ErrNotWatched) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	for range 2 {
		watcher.Watch(t.Context(), []string{namespace})
		<-told
		watcher.Watch(t.Context(), nil)
		if _, err := watcher.Scale(ref); !errors.Is(err, fleet.ErrNotWatched) {
			t.Errorf("in a namespace that is not watched any more: %v", err)
		}
	}
}
