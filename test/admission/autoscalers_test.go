package admission_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

func (f *fixture) testAutoscalers(t *testing.T) {
	t.Run("no kind goes to zero while there is work", f.refusesWork)
	t.Run("each goes when there is none", f.passesIdle)
	t.Run("what is not known is no zero", f.refusesUnknown)
	t.Run("a look that does not end is none either", f.refusesEndless)
	t.Run("a paused target stays", f.refusesPaused)
	t.Run("a dry run is answered alike, and tells nobody", f.dryRun)
	t.Run("the HPA's refusals are told, celery-hpa tells its own", f.tellsRefusals)
	t.Run("nothing else is asked about", f.asksAboutStepsToZeroAlone)
	t.Run("others are never asked about", f.leavesOthersAlone)
	t.Run("who opts out is on his own", f.optsOut)
}

// everyKind makes a namespace with a target of each kind, and returns once the API
// server asks about all of them.
func (f *fixture) everyKind(t *testing.T) []workload {
	t.Helper()
	namespace := f.namespace(t)
	all := []workload{deployment(namespace, "worker"), statefulSet(namespace, "worker"), thing(namespace, "worker")}
	for _, w := range all {
		f.apply(t, w.document(1)+w.hpaDocument(optIn))
	}
	for _, w := range all {
		f.awaitAsked(t, w)
	}
	return all
}

// one makes a namespace with one target.
func (f *fixture) one(t *testing.T) workload {
	t.Helper()
	w := deployment(f.namespace(t), "worker")
	f.apply(t, w.document(1)+w.hpaDocument(optIn))
	f.awaitAsked(t, w)
	return w
}

// awaitAsked waits until the API server asks both webhooks about a target.
func (f *fixture) awaitAsked(t *testing.T, w workload) {
	t.Helper()
	for path, who := range map[string]*scaler{admission.ZeroPath: f.hpa, admission.NoticePath: f.person} {
		eventually.Succeeds(t, patience, "the API server asks about "+w.String(), func() error {
			if err := who.update(t, w, 0, "dryRun"); err != nil && !apierrors.IsForbidden(err) {
				return err
			}
			if !f.celeryHPA.askedAbout(path, w) {
				return errors.New("it did not ask at " + path)
			}
			return nil
		})
		who.warnings.take()
	}
}

// refuse checks that a request was refused, with the message, and without effect.
func (f *fixture) refuse(t *testing.T, what string, w workload, err error, message string) {
	t.Helper()
	const denied = `admission webhook "zero.celery-hpa.io" denied the request: celery-hpa: not to zero: `
	if !apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), denied+message) {
		t.Errorf("%s of %s: %v, want it forbidden with %q", what, w, err, message)
	}
	if n := f.replicas(t, w); n == 0 {
		t.Errorf("%s of %s has gone to zero", what, w)
	}
}

const threeWait = "queue redis/celery: 3 messages wait"

func (f *fixture) refusesWork(t *testing.T) {
	for _, w := range f.everyKind(t) {
		f.celeryHPA.find(w.Namespace, messages)
		f.refuse(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), threeWait)
		f.refuse(t, "celery-hpa's PATCH", w, f.ours.patch(t, w, 0), threeWait)
	}
}

func (f *fixture) passesIdle(t *testing.T) {
	for _, w := range f.everyKind(t) {
		f.expect(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), 0)
		f.expect(t, "a wake", w, f.ours.patch(t, w, 2), 2)
		f.expect(t, "celery-hpa's PATCH", w, f.ours.patch(t, w, 0), 0)
		if !f.celeryHPA.askedAbout(admission.ZeroPath, w) {
			t.Errorf("%s went to zero unasked", w)
		}
	}
}

// refusesUnknown sees an answer of celery-hpa itself each time, with what is not known:
// it has come before the API server gave up.
func (f *fixture) refusesUnknown(t *testing.T) {
	w := f.one(t)
	for _, tt := range []struct {
		rule    string
		find    look
		message string
	}{
		{"a broker that hangs", hanging, "its queues: the broker does not answer"},
		{"a look that panics", panicking, "the target could not be looked at: an error in celery-hpa, which its log shows"},
		{"a target without queues", func(context.Context) idle.Observation { return idle.Observation{} }, "its queues: none is known"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			f.celeryHPA.find(w.Namespace, tt.find)
			f.refuse(t, tt.rule, w, f.hpa.update(t, w, 0), tt.message)
		})
	}
}

func (f *fixture) refusesEndless(t *testing.T) {
	w := f.one(t)
	release := make(chan struct{})
	f.celeryHPA.find(w.Namespace, func(context.Context) idle.Observation {
		<-release
		return waiting(0)
	})
	err := f.hpa.update(t, w, 0)
	close(release)
	if err == nil || f.replicas(t, w) == 0 {
		t.Errorf("the step passed with %v and left %d replicas, want it refused by the API server", err, f.replicas(t, w))
	}
}

func (f *fixture) refusesPaused(t *testing.T) {
	w := f.one(t)
	f.annotate(t, w, v1alpha1.AnnotationPaused+"=true")
	eventually.Succeeds(t, patience, "the pause is known", func() error {
		if !slices.ContainsFunc(f.targets.OptedIn(), func(other target.Target) bool { return other.Namespace == w.Namespace && other.Zero.Paused }) {
			return errors.New("it is not")
		}
		return nil
	})
	f.refuse(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), "HorizontalPodAutoscaler worker-deployment is paused (celery-hpa.io/paused)")
}

func (f *fixture) annotate(t *testing.T, w workload, annotation string) {
	t.Helper()
	f.kubectl(t, "annotate", "--overwrite", "--namespace="+w.Namespace, "hpa/"+w.hpaName(), annotation)
}

func (f *fixture) dryRun(t *testing.T) {
	w := f.one(t)
	f.celeryHPA.find(w.Namespace, messages)
	f.celeryHPA.told()
	f.refuse(t, "a dry run", w, f.hpa.update(t, w, 0, "dryRun"), threeWait)
	if told := f.celeryHPA.told(); len(told) > 0 {
		t.Errorf("told %q, want nothing", told)
	}
	f.celeryHPA.find(w.Namespace, nothing)
	f.expect(t, "a dry run", w, f.hpa.update(t, w, 0, "dryRun"), 1)
}

func (f *fixture) tellsRefusals(t *testing.T) {
	w := f.one(t)
	f.celeryHPA.find(w.Namespace, messages)
	f.celeryHPA.told()
	f.refuse(t, "celery-hpa's PATCH", w, f.ours.patch(t, w, 0), threeWait)
	f.refuse(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), threeWait)
	want := []string{w.String() + ": work: " + threeWait}
	if diff := cmp.Diff(want, f.celeryHPA.told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func (f *fixture) asksAboutStepsToZeroAlone(t *testing.T) {
	for _, w := range f.everyKind(t) {
		f.celeryHPA.find(w.Namespace, messages)
		for _, n := range []int32{3, 2, 1} {
			f.expect(t, "a step above zero", w, f.hpa.update(t, w, n), n)
		}
		f.expect(t, "a person's zero", w, f.person.patch(t, w, 0), 0)
		f.celeryHPA.askedAbout(admission.NoticePath, w)
		f.expect(t, "a zero that is", w, f.hpa.update(t, w, 0), 0)
		f.expect(t, "a wake", w, f.hpa.update(t, w, 1), 1)
		for _, path := range []string{admission.ZeroPath, admission.NoticePath} {
			if f.celeryHPA.askedAbout(path, w) {
				t.Errorf("asked at %s about %s", path, w)
			}
		}
	}
}

// strangers are workloads that nobody may be asked about, beside a target.
func (f *fixture) strangers(t *testing.T) []workload {
	t.Helper()
	ours := f.one(t)
	elsewhere := f.namespace(t)
	all := []workload{
		deployment(ours.Namespace, "web"), statefulSet(ours.Namespace, "worker"), thing(ours.Namespace, "worker"),
		imposter(ours.Namespace, "worker"), deployment(elsewhere, "worker"), deployment(elsewhere, "scaled"),
	}
	for _, w := range all {
		f.apply(t, w.document(1))
	}
	f.apply(t, all[5].hpaDocument("")) // scaled on a metric of ours, without asking for zero
	f.celeryHPA.find(ours.Namespace, messages)
	f.celeryHPA.find(elsewhere, messages)
	return all
}

func (f *fixture) leavesOthersAlone(t *testing.T) {
	for _, w := range f.strangers(t) {
		f.expect(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), 0)
		if f.celeryHPA.askedAbout(admission.ZeroPath, w) {
			t.Errorf("asked about %s", w)
		}
	}
}

func (f *fixture) optsOut(t *testing.T) {
	w := f.one(t)
	f.celeryHPA.find(w.Namespace, messages)
	f.annotate(t, w, v1alpha1.AnnotationScaleToZero+"=false")
	eventually.Succeeds(t, patience, "the HPA may go to zero", func() error { return f.hpa.update(t, w, 0) })
}
