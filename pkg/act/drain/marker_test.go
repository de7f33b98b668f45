package drain_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

func known(n int64) queue.Count { return queue.Known(n, time.Time{}) }

func unknown() queue.Count { return queue.Unknown(errors.New("nobody has said")) }

func TestCosts(t *testing.T) {
	for _, tt := range []struct {
		rule   string
		member fleet.Member
		want   string
	}{
		{"an idle pod has none", fleet.Member{State: fleet.Idle}, ""},
		{"a starting pod has none", fleet.Member{State: fleet.Starting}, ""},
		{"a busy pod has one", fleet.Member{State: fleet.Busy, Active: known(1)}, "1000001"},
		{"the more tasks, the more", fleet.Member{State: fleet.Busy, Active: known(7)}, "1000007"},
		{"a draining pod is busy, with tasks or without", fleet.Member{State: fleet.Draining, Active: known(0)}, "1000001"},
		{"a pod of which nothing is known is busy", fleet.Member{State: fleet.Unknown, Active: unknown(), Slots: unknown()}, "1000001"},
		{"it may execute as much as it has slots for", fleet.Member{State: fleet.Unknown, Active: unknown(), Slots: known(8)}, "1000008"},
		{"what it executes counts, not its slots", fleet.Member{State: fleet.Busy, Active: known(2), Slots: known(8)}, "1000002"},
		{"a pod that ends concerns nobody", fleet.Member{State: fleet.Busy, Active: known(1), Terminating: true}, ""},
		{"there is a highest cost", fleet.Member{State: fleet.Busy, Active: known(math.MaxInt64)}, "2147483647"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			tt.member.Pod = "worker-a"
			want := map[string]string{}
			if tt.want != "" {
				want["worker-a"] = tt.want
			}
			if diff := cmp.Diff(want, drain.Costs(fleet.Fleet{Members: []fleet.Member{tt.member}})); diff != "" {
				t.Errorf("costs (-want +got):\n%s", diff)
			}
		})
	}
}

func ourCost(cost string) map[string]string {
	return map[string]string{v1alpha1.AnnotationDeletionCost: cost, v1alpha1.AnnotationDeletionCostNote: cost}
}

func TestMarkWritesWhatDiffers(t *testing.T) {
	theirs := map[string]string{v1alpha1.AnnotationDeletionCost: "5"}
	overwritten := map[string]string{v1alpha1.AnnotationDeletionCost: "5", v1alpha1.AnnotationDeletionCostNote: "1000001"}
	for _, tt := range []struct {
		rule        string
		state       fleet.State
		annotations map[string]string
		want        []string
	}{
		{"a busy pod without a cost gets one", fleet.Busy, nil, []string{"a: celery-hpa.io/deletion-cost=1000003 controller.kubernetes.io/pod-deletion-cost=1000003"}},
		{"another number of tasks is another cost", fleet.Busy, ourCost("1000001"), []string{"a: celery-hpa.io/deletion-cost=1000003 controller.kubernetes.io/pod-deletion-cost=1000003"}},
		{"the right cost is not written again", fleet.Busy, ourCost("1000003"), nil},
		{"an idle pod loses its cost", fleet.Idle, ourCost("1000003"), []string{"a: celery-hpa.io/deletion-cost- controller.kubernetes.io/pod-deletion-cost-"}},
		{"an idle pod without one is not written", fleet.Idle, nil, nil},
		{"somebody's cost stays on a busy pod", fleet.Busy, theirs, nil},
		{"somebody's cost stays on an idle pod", fleet.Idle, theirs, nil},
		{"so does one that somebody has written over ours", fleet.Idle, overwritten, nil},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			w := newWorld(fleet.Member{Pod: "a", State: tt.state, Active: known(3), Annotations: tt.annotations})
			if err := drain.NewMarker(w).Mark(t.Context(), w.fleet); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, w.take()); diff != "" {
				t.Errorf("patches (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMarkRaisesBeforeItLowers(t *testing.T) {
	var members []fleet.Member
	for i := range 100 {
		m := fleet.Member{Pod: string(rune('A' + i)), State: fleet.Busy, Active: known(1)}
		if i%2 == 0 {
			m.State, m.Annotations = fleet.Idle, ourCost("1000001")
		}
		members = append(members, m)
	}
	w := newWorld(members...)
	if err := drain.NewMarker(w).Mark(t.Context(), w.fleet); err != nil {
		t.Fatal(err)
	}
	patches := w.take()
	lowers := func(patch string) bool { return strings.HasSuffix(patch, "-") }
	if i := slices.IndexFunc(patches, lowers); len(patches) != 100 || i != 50 || slices.ContainsFunc(patches[i:], func(p string) bool { return !lowers(p) }) {
		t.Errorf("of %d patches the one at %d is the first that lowers a cost; want 50 that raise, then 50 that lower", len(patches), i)
	}
}

func TestMarkNeedsNoPodThatIsGone(t *testing.T) {
	uid := field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), "1", "field is immutable")}
	for rule, refusal := range map[string]error{
		"a pod that is gone":                 apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "a"),
		"a pod that was replaced by another": apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", uid),
	} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy})
			w.refuse = refusal
			if err := drain.NewMarker(w).Mark(t.Context(), w.fleet); err != nil {
				t.Errorf("Mark() = %v, want nil", err)
			}
		})
	}
}

func TestMarkSaysHowManyPodsItCouldNotWrite(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy}, fleet.Member{Pod: "b", State: fleet.Busy}, fleet.Member{Pod: "c", State: fleet.Idle})
	w.refuse = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "a", errors.New("no right"))
	err := drain.NewMarker(w).Mark(t.Context(), w.fleet)
	for _, want := range []string{"Deployment airflow/worker", "2 of 2 pods", "no right"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Mark() = %v, want it to say %q", err, want)
		}
	}
	if !apierrors.IsForbidden(err) {
		t.Errorf("Mark() = %v, want it to wrap the API server's error", err)
	}
}
