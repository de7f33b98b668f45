package scaledown_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

func (f *fixture) testMarker(t *testing.T) {
	t.Run("busy pods have a cost, idle ones have none", f.marksBusy)
	t.Run("a cost that somebody has set stays", f.leavesTheirCost)
	t.Run("a pod that is gone or was replaced is no error", f.sparesReplacements)
	t.Run("a mark that is out of time is an error", f.outOfTime)
}

func (f *fixture) marksBusy(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", 40))
	ref := deploymentRef(namespace, "worker")
	pods := f.awaitPods(t, namespace, "worker", 40)
	busy, others := names(pods[:20]), names(pods[10:30])
	for _, busy := range [][]string{busy, others, nil} {
		f.mark(t, observe(ref, pods, busy...))
		pods = f.pods(t, namespace, "worker")
		for _, p := range pods {
			want := map[string]string{}
			if slices.Contains(busy, p.Name) {
				want = map[string]string{v1alpha1.AnnotationDeletionCost: "1000001", v1alpha1.AnnotationDeletionCostNote: "1000001"}
			}
			if diff := cmp.Diff(want, annotationsOf(p)); diff != "" {
				t.Errorf("pod %s (-want +got):\n%s", p.Name, diff)
			}
		}
		f.mark(t, observe(ref, pods, busy...))
		if diff := cmp.Diff(versions(pods), versions(f.pods(t, namespace, "worker"))); diff != "" {
			t.Errorf("marking again has written (-before +after):\n%s", diff)
		}
	}
}

func (f *fixture) leavesTheirCost(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", 1))
	pod := f.awaitPods(t, namespace, "worker", 1)[0].Name
	f.kubectl(t, "annotate", "--namespace="+namespace, "pod/"+pod, v1alpha1.AnnotationDeletionCost+"=7")
	for _, busy := range []string{pod, ""} {
		f.mark(t, observe(deploymentRef(namespace, "worker"), f.pods(t, namespace, "worker"), busy))
		want := map[string]string{v1alpha1.AnnotationDeletionCost: "7"}
		if diff := cmp.Diff(want, annotationsOf(f.pods(t, namespace, "worker")[0])); diff != "" {
			t.Errorf("with %q busy (-want +got):\n%s", busy, diff)
		}
	}
}

func (f *fixture) sparesReplacements(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", 1))
	pods := f.awaitPods(t, namespace, "worker", 1)
	replaced := *pods[0].DeepCopy()
	replaced.UID = "11111111-1111-1111-1111-111111111111"
	gone := *replaced.DeepCopy()
	gone.Name = "worker-gone"
	f.mark(t, observe(deploymentRef(namespace, "worker"), []corev1.Pod{replaced, gone}, replaced.Name, gone.Name))
	if diff := cmp.Diff(map[string]string{}, annotationsOf(f.pods(t, namespace, "worker")[0])); diff != "" {
		t.Errorf("another pod of the name was annotated (-want +got):\n%s", diff)
	}
}

func (f *fixture) outOfTime(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", 1))
	pods := f.awaitPods(t, namespace, "worker", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := drain.NewMarker(f.ours.CoreV1()).Mark(ctx, observe(deploymentRef(namespace, "worker"), pods, pods[0].Name))
	if err == nil || !strings.Contains(err.Error(), "1 of 1 pods") {
		t.Errorf("Mark() = %v, want an error that counts the pods", err)
	}
}

func (f *fixture) mark(t *testing.T, observed fleet.Fleet) {
	t.Helper()
	if err := drain.NewMarker(f.ours.CoreV1()).Mark(t.Context(), observed); err != nil {
		t.Fatal(err)
	}
}

// testProtector lets a protector take turns at times that the test decides.
func (f *fixture) testProtector(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", 3)+"---"+hpa(namespace, "worker", "worker", "celery_queue_tasks"))
	ref := deploymentRef(namespace, "worker")
	pods := f.awaitPods(t, namespace, "worker", 3)
	busy, idle, theirs := pods[0].Name, pods[1].Name, pods[2].Name
	f.kubectl(t, "annotate", "--namespace="+namespace, "pod/"+theirs, v1alpha1.AnnotationSafeToEvict+"=true")
	protector, now := drain.NewProtector(f.ours.CoreV1(), f.fleets, f.targets, logger(t)), time.Now()
	turn := func(pause time.Duration, busy ...string) map[string]map[string]string {
		t.Helper()
		now = now.Add(pause)
		f.fleets.set(observe(ref, f.pods(t, namespace, "worker"), busy...))
		protector.Turn(t.Context(), now)
		return f.annotations(t, namespace)
	}
	none := map[string]map[string]string{busy: {}, idle: {}, theirs: {v1alpha1.AnnotationSafeToEvict: "true"}}
	both := map[string]map[string]string{
		busy: {
			v1alpha1.AnnotationSafeToEvict: "false", v1alpha1.AnnotationDoNotDisrupt: "true",
			v1alpha1.AnnotationNodeProtectionNote: v1alpha1.AnnotationSafeToEvict + "," + v1alpha1.AnnotationDoNotDisrupt,
		},
		idle: {},
		theirs: {
			v1alpha1.AnnotationSafeToEvict: "true", v1alpha1.AnnotationDoNotDisrupt: "true",
			v1alpha1.AnnotationNodeProtectionNote: v1alpha1.AnnotationDoNotDisrupt,
		},
	}
	check := func(rule string, want, got map[string]map[string]string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", rule, diff)
		}
	}
	check("without asking for it", none, turn(time.Second, busy, theirs))
	f.protect(t, namespace, "true")
	check("busy pods are protected", both, turn(time.Second, busy, theirs))
	check("at first they stay so", both, turn(time.Second))
	check("idle ones are released", none, turn(time.Minute))
	turn(time.Second, busy, theirs)
	f.protect(t, namespace, "false")
	turn(time.Minute, busy, theirs)
	check("when the HPA opts out all are", none, turn(time.Minute, busy, theirs))
}

// protect sets the annotation of the HPA, and waits until that is known.
func (f *fixture) protect(t *testing.T, namespace, value string) {
	t.Helper()
	f.kubectl(t, "annotate", "--overwrite", "--namespace="+namespace, "hpa/worker", v1alpha1.AnnotationProtectNodes+"="+value)
	f.awaitTargets(t, func() bool {
		return slices.ContainsFunc(f.targets.Targets(namespace), func(other target.Target) bool { return other.ProtectNodes == (value == "true") })
	})
}

func (f *fixture) annotations(t *testing.T, namespace string) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for _, p := range f.pods(t, namespace, "worker") {
		found[p.Name] = annotationsOf(p)
	}
	return found
}

// annotationsOf are those that celery-hpa may write.
func annotationsOf(p corev1.Pod) map[string]string {
	found := map[string]string{}
	maps.Copy(found, p.Annotations)
	maps.DeleteFunc(found, func(key, _ string) bool { return !slices.Contains(v1alpha1.PodAnnotations(), key) })
	return found
}

func (f *fixture) testTargets(t *testing.T) {
	t.Run("targets follow the HPAs", f.followsHPAs)
	t.Run("namespaces come and go", f.namespacesComeAndGo)
	t.Run("a status that changes is no change", f.ignoresStatus)
	f.testOptedIn(t)
}

// awaitTargets waits for the watcher to tell of changes until one is reached.
func (f *fixture) awaitTargets(t *testing.T, reached func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := f.targets.Changed()
		if reached() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not within %s; the targets are %v", patience, f.targets.All())
		}
	}
}

func (f *fixture) followsHPAs(t *testing.T) {
	namespace := f.namespace(t)
	targets := func() []string {
		var texts []string
		for _, other := range f.targets.Targets(namespace) {
			texts = append(texts, other.HPA+" → "+other.String())
		}
		return texts
	}
	await := func(want ...string) {
		t.Helper()
		for i, text := range want {
			want[i] = strings.ReplaceAll(text, "NS", namespace)
		}
		f.awaitTargets(t, func() bool { return slices.Equal(want, targets()) })
	}
	f.apply(t, hpa(namespace, "b", "two", "celery_queue_tasks")+"---"+hpa(namespace, "other", "web", "requests"))
	await("b → Deployment NS/two")
	f.apply(t, hpa(namespace, "a", "two", "celery_busy_workers")+"---"+hpa(namespace, "c", "one", "celery_queue_backlog"))
	await("c → Deployment NS/one", "a → Deployment NS/two", "b → Deployment NS/two")
	f.apply(t, hpa(namespace, "c", "three", "celery_queue_backlog"))
	await("c → Deployment NS/three", "a → Deployment NS/two", "b → Deployment NS/two")
	f.apply(t, hpa(namespace, "b", "two", "requests"))
	await("c → Deployment NS/three", "a → Deployment NS/two")
	f.kubectl(t, "delete", "--namespace="+namespace, "hpa", "a")
	await("c → Deployment NS/three")
}

func (f *fixture) namespacesComeAndGo(t *testing.T) {
	log := &servers.Transcript{}
	watcher := target.NewWatcher(f.ours, testLogger(log))
	if watcher.Synced() {
		t.Error("a watcher that knows no namespace has synced")
	}
	one, two := f.namespace(t), f.namespace(t)
	f.apply(t, hpa(one, "a", "worker", "celery_queue_tasks")+"---"+hpa(one, "b", "worker", "celery_queue_tasks")+
		"---"+hpa(two, "a", "worker", "celery_queue_tasks")+
		"---"+hpa(one, "c", "shop", "requests")+"---"+hpa(one, "d", "shop", "requests"))
	f.kubectl(t, "annotate", "--namespace="+two, "hpa/a", v1alpha1.AnnotationProtectNodes+"=yes")
	run(t, watcher.Run)
	for _, namespaces := range [][]string{{one}, {two, one, two}, {two}, {}, {one, two}} {
		watcher.Watch(namespaces)
		eventually.Succeeds(t, patience, "the watcher has synced", func() error {
			for _, namespace := range []string{one, two} {
				if wanted, there := slices.Contains(namespaces, namespace), len(watcher.Targets(namespace)) > 0; !watcher.Synced() || wanted != there {
					return context.DeadlineExceeded
				}
			}
			return nil
		})
	}
	if text := log.String(); strings.Contains(text, "shop") || !strings.Contains(text, "Two HorizontalPodAutoscalers scale one target") || !strings.Contains(text, `must be \"true\" or \"false\"`) {
		t.Errorf("the log lacks two HPAs on one target, or a wrong annotation, or has two of which none is ours:\n%s", text)
	}
}

func (f *fixture) ignoresStatus(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, hpa(namespace, "a", "worker", "celery_queue_tasks"))
	f.awaitTargets(t, func() bool { return f.targets.Synced() && len(f.targets.Targets(namespace)) == 1 })
	before := len(f.targets.All())
	changed, first := f.targets.Changed(), make(chan int, 1)
	go func() {
		<-changed
		first <- len(f.targets.All())
	}()
	hpas := f.admin.AutoscalingV2().HorizontalPodAutoscalers(namespace)
	eventually.Succeeds(t, patience, "the status is written", func() error {
		object, err := hpas.Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			return err
		}
		object.Status.DesiredReplicas++
		_, err = hpas.UpdateStatus(t.Context(), object, metav1.UpdateOptions{})
		return err
	})
	// The next change that is told is one that counts.
	f.apply(t, hpa(namespace, "b", "worker", "celery_queue_tasks"))
	if after := <-first; after != before+1 {
		t.Errorf("a change was told that left %d targets, want none before there are %d", after, before+1)
	}
}
