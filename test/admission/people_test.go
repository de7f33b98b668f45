package admission_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (f *fixture) testPeople(t *testing.T) {
	t.Run("they are told what is still there, and what happens next", f.warnsPeople)
	t.Run("kubectl shows it", f.warnsOnKubectl)
	t.Run("a broker that hangs holds nobody up for long", f.hangsPeople)
}

// outlook is what people are told of every target.
func outlook(w workload) string {
	return fmt.Sprintf(`celery-hpa: %s is scaled up as soon as a task waits, unless HorizontalPodAutoscaler %s is annotated celery-hpa.io/paused: "true"`, w, w.hpaName())
}

func (f *fixture) warnsPeople(t *testing.T) {
	for _, w := range f.everyKind(t) {
		f.celeryHPA.find(w.Namespace, messages)
		f.expect(t, "a person's zero", w, f.person.patch(t, w, 0), 0)
		want := []string{"celery-hpa: " + threeWait, outlook(w)}
		if diff := cmp.Diff(want, f.person.warnings.take()); diff != "" {
			t.Errorf("%s: warnings (-want +got):\n%s", w, diff)
		}
	}
	if told := f.celeryHPA.told(); len(told) > 0 {
		t.Errorf("told of refusals %q that were none", told)
	}
}

func (f *fixture) warnsOnKubectl(t *testing.T) {
	for _, w := range f.everyKind(t) {
		f.celeryHPA.find(w.Namespace, messages)
		f.checkKubectl(t, w, "kubectl scale", f.kubectlWarns(t, "", "scale", "--namespace="+w.Namespace, w.arg(), "--replicas=0"))
		f.expect(t, "a wake", w, f.person.patch(t, w, 1), 1)
		if w.APIVersion == "apps/v1" {
			f.checkKubectl(t, w, "kubectl apply", f.kubectlWarns(t, w.document(0), "apply", "-f", "-"))
		}
	}
}

func (f *fixture) checkKubectl(t *testing.T, w workload, what, warned string) {
	t.Helper()
	f.expect(t, what, w, nil, 0)
	for _, want := range []string{"Warning: celery-hpa: " + threeWait, "Warning: " + outlook(w)} {
		if !strings.Contains(warned, want) {
			t.Errorf("%s of %s shows %q, want %q in it", what, w, warned, want)
		}
	}
}

func (f *fixture) hangsPeople(t *testing.T) {
	w := f.one(t)
	f.celeryHPA.find(w.Namespace, hanging)
	f.expect(t, "a person's zero", w, f.person.patch(t, w, 0), 0)
	want := []string{"celery-hpa: its queues: the broker does not answer", outlook(w)}
	if diff := cmp.Diff(want, f.person.warnings.take()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}
