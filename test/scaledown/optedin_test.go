package scaledown_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// asksForZero makes an HPA, as hpa writes it, ask for zero.
func asksForZero(manifest string) string {
	return strings.Replace(manifest, "metadata: {", `metadata: {annotations: {celery-hpa.io/scale-to-zero: "true"}, `, 1)
}

func (f *fixture) testOptedIn(t *testing.T) {
	t.Run("those that ask for zero are known, with their mistakes", f.knowsOptedIn)
	t.Run("a target of two HPAs goes to zero for none", f.refusesShared)
	t.Run("what the API server fills in is nothing said", f.seesThroughDefaults)
	t.Run("HPAs that have nothing to do with ours are no change", f.ignoresStrangers)
}

// optedIn describes what asks for zero in a namespace: its HPA and what it scales,
// and a part of its mistake.
func (f *fixture) optedIn(namespace string) []string {
	var texts []string
	for _, known := range f.targets.OptedIn() {
		if known.Namespace == namespace {
			texts = append(texts, fmt.Sprintf("%s → %s: %v", known.HPA, known.Name, known.Zero.Mistake))
		}
	}
	return texts
}

// awaitOptedIn waits until what asks for zero in a namespace is described by texts
// that contain these.
func (f *fixture) awaitOptedIn(t *testing.T, namespace string, want ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Errorf("opted in: %q, want %q", f.optedIn(namespace), want)
		}
	}()
	f.awaitTargets(t, func() bool { return slices.EqualFunc(f.optedIn(namespace), want, strings.Contains) })
}

func (f *fixture) knowsOptedIn(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, asksForZero(hpa(namespace, "b", "two", "celery_queue_tasks"))+"---"+asksForZero(hpa(namespace, "a", "one", "requests"))+
		"---"+asksForZero(hpa(namespace, "d", "zero", "celery_busy_workers"))+
		"---"+hpa(namespace, "c", "three", "celery_queue_tasks")+"---"+hpa(namespace, "e", "four", "requests"))
	f.awaitOptedIn(t, namespace,
		"a → one: the HPA scales on no metric of a queue", "b → two: <nil>", "d → zero: the HPA scales on no metric of a queue")
	var ours []string
	for _, known := range f.targets.Targets(namespace) {
		ours = append(ours, known.HPA)
	}
	if want := []string{"c", "b", "d"}; !slices.Equal(ours, want) {
		t.Errorf("with metrics of ours there are %q, want %q", ours, want)
	}
	f.kubectl(t, "annotate", "--overwrite", "--namespace="+namespace, "hpa/b", v1alpha1.AnnotationIdleWindow+"=5")
	f.awaitOptedIn(t, namespace, "a → one", `b → two: annotation celery-hpa.io/idle-window is "5": it needs a unit`, "d → zero")
	f.kubectl(t, "annotate", "--overwrite", "--namespace="+namespace, "hpa/b", v1alpha1.AnnotationIdleWindow+"=90s")
	f.awaitOptedIn(t, namespace, "a → one", "b → two: <nil>", "d → zero")
	f.kubectl(t, "annotate", "--overwrite", "--namespace="+namespace, "hpa/b", v1alpha1.AnnotationScaleToZero+"=false")
	f.kubectl(t, "annotate", "--namespace="+namespace, "hpa/a", v1alpha1.AnnotationScaleToZero+"-")
	f.awaitOptedIn(t, namespace, "d → zero")
	f.kubectl(t, "delete", "--namespace="+namespace, "hpa", "d")
	f.awaitOptedIn(t, namespace)
}

func (f *fixture) refusesShared(t *testing.T) {
	for _, tt := range []struct{ rule, other string }{
		{"with one that has metrics of ours", hpa("NS", "other", "worker", "celery_queue_tasks")},
		{"with one that has none", hpa("NS", "other", "worker", "requests")},
		{"with one that names another version", strings.Replace(hpa("NS", "other", "worker", "requests"), "apps/v1", "apps/v1beta9", 1)},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			namespace := f.namespace(t)
			other := strings.ReplaceAll(tt.other, "NS", namespace)
			f.apply(t, asksForZero(hpa(namespace, "asks", "worker", "celery_queue_tasks")))
			f.awaitOptedIn(t, namespace, "asks → worker: <nil>")
			f.apply(t, other)
			const refused = "is scaled by another HorizontalPodAutoscaler, too "
			f.awaitOptedIn(t, namespace, refused+"(other), and")
			for _, known := range f.targets.Targets(namespace) {
				if known.HPA == "other" && known.Zero != (target.Zero{}) {
					t.Errorf("who does not ask for zero is told %+v", known.Zero)
				}
			}
			f.apply(t, asksForZero(other))
			f.awaitOptedIn(t, namespace, refused+"(other), and", refused+"(asks), and")
			f.apply(t, strings.Replace(other, "name: worker", "name: elsewhere", 1))
			f.awaitOptedIn(t, namespace, "asks → worker: <nil>")
			f.apply(t, other)
			f.awaitOptedIn(t, namespace, refused)
			f.kubectl(t, "delete", "--namespace="+namespace, "hpa", "other")
			f.awaitOptedIn(t, namespace, "asks → worker: <nil>")
		})
	}
	t.Run("not with one of another group", func(t *testing.T) {
		namespace := f.namespace(t)
		stranger := strings.Replace(hpa(namespace, "other", "worker", "celery_queue_tasks"), "apps/v1", "example.org/v1", 1)
		f.apply(t, stranger+"---"+asksForZero(hpa(namespace, "asks", "worker", "celery_queue_tasks")))
		f.awaitTargets(t, func() bool { return len(f.targets.Targets(namespace)) == 2 })
		f.awaitOptedIn(t, namespace, "asks → worker: <nil>")
	})
}

// seesThroughDefaults asks the API server what it makes of behaviors.
func (f *fixture) seesThroughDefaults(t *testing.T) {
	namespace := f.namespace(t)
	for _, tt := range []struct {
		name, behavior string
		said           bool
		want           int32 // with much to do
	}{
		{"none", "", false, 20},
		{"down", "behavior: {scaleDown: {stabilizationWindowSeconds: 10}}", false, 20},
		{"nothing", "behavior: {scaleUp: {}}", false, 20},
		{"window", "behavior: {scaleUp: {stabilizationWindowSeconds: 10}}", true, 20},
		{"tolerance", `behavior: {scaleUp: {tolerance: "0.2"}}`, true, 20},
		{"pods", "behavior: {scaleUp: {policies: [{type: Pods, value: 3, periodSeconds: 60}]}}", true, 3},
		{"percent", "behavior: {scaleUp: {policies: [{type: Percent, value: 300, periodSeconds: 60}]}}", true, 1},
		{"least", "behavior: {scaleUp: {selectPolicy: Min}}", true, 1},
	} {
		f.apply(t, asksForZero(hpa(namespace, tt.name, tt.name, "celery_queue_tasks"))+"  "+tt.behavior+"\n")
		find := func(known target.Target) bool { return known.HPA == tt.name && known.Namespace == namespace }
		f.awaitTargets(t, func() bool { return slices.ContainsFunc(f.targets.OptedIn(), find) })
		all := f.targets.OptedIn()
		known := all[slices.IndexFunc(all, find)]
		object, err := f.admin.AutoscalingV2().HorizontalPodAutoscalers(namespace).Get(t.Context(), tt.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if known.UID == "" || known.UID != object.UID {
			t.Errorf("%s: UID %q, want %q", tt.name, known.UID, object.UID)
		}
		got, err := known.Wanted(0, 0, []target.Value{{Milli: 1e6}})
		if (known.ScaleUp != nil) != tt.said || got != tt.want || err != nil {
			t.Errorf("%s: of %+v it is said %+v, and wanted %d, %v; want it said: %v, and %d",
				tt.name, object.Spec.Behavior, known.ScaleUp, got, err, tt.said, tt.want)
		}
	}
}

func (f *fixture) ignoresStrangers(t *testing.T) {
	namespace := f.namespace(t)
	f.apply(t, hpa(namespace, "first", "worker", "celery_queue_tasks"))
	f.awaitTargets(t, func() bool { return f.targets.Synced() && len(f.targets.Targets(namespace)) == 1 })
	changed, told := f.targets.Changed(), make(chan int, 1)
	go func() {
		<-changed
		told <- len(f.targets.Targets(namespace))
	}()
	f.apply(t, hpa(namespace, "stranger", "web", "requests"))
	f.apply(t, hpa(namespace, "stranger", "shop", "requests"))
	f.kubectl(t, "delete", "--namespace="+namespace, "hpa", "stranger")
	// The next change that is told is one that counts.
	f.apply(t, hpa(namespace, "second", "worker-2", "celery_queue_tasks"))
	select {
	case n := <-told:
		if n != 2 {
			t.Errorf("a change was told that left %d targets, want none before there are 2", n)
		}
	case <-t.Context().Done():
		t.Error(context.Cause(t.Context()))
	}
}
