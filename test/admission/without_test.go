package admission_test

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// testWithout stops celery-hpa where targets are listed.
func (f *fixture) testWithout(t *testing.T) {
	targets := f.everyKind(t)
	strangers := f.strangers(t)
	f.celeryHPA.stop(t)
	defer f.celeryHPA.start(t)
	t.Run("an autoscaler's step to zero does not pass", func(t *testing.T) {
		for _, w := range targets {
			for who, err := range map[string]error{"the HPA": f.hpa.update(t, w, 0), "celery-hpa": f.ours.patch(t, w, 0)} {
				if !apierrors.IsInternalError(err) || f.replicas(t, w) != 1 {
					t.Errorf("%s takes %s to %d replicas: %v; want it refused", who, w, f.replicas(t, w), err)
				}
			}
		}
	})
	t.Run("every other step of theirs passes", func(t *testing.T) {
		for _, w := range targets {
			for _, n := range []int32{3, 1} {
				f.expect(t, "a step above zero", w, f.hpa.update(t, w, n), n)
			}
		}
	})
	t.Run("people scale to zero as ever", func(t *testing.T) {
		for _, w := range append(targets, strangers...) {
			f.expect(t, "a person's PATCH", w, f.person.patch(t, w, 0), 0)
			f.expect(t, "a wake", w, f.hpa.update(t, w, 1), 1)
			f.kubectl(t, "scale", "--namespace="+w.Namespace, w.arg(), "--replicas=0")
			f.expect(t, "kubectl scale", w, nil, 0)
			f.expect(t, "a wake", w, f.hpa.update(t, w, 1), 1)
			f.apply(t, w.document(0))
			f.expect(t, "kubectl apply", w, nil, 0)
			f.apply(t, w.document(1))
			f.expect(t, "a wake by kubectl apply", w, nil, 1)
		}
	})
	t.Run("autoscalers take all others to zero", func(t *testing.T) {
		for _, w := range strangers {
			f.expect(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), 0)
		}
	})
}

// testAtFirst applies the manifest where celery-hpa has never run.
func (f *fixture) testAtFirst(t *testing.T) {
	f.register(t, "https://127.0.0.1:1")
	namespace := f.namespace(t)
	for _, w := range []workload{deployment(namespace, "worker"), statefulSet(namespace, "worker"), thing(namespace, "worker")} {
		f.apply(t, w.document(1)+w.hpaDocument(optIn))
		f.expect(t, "the HPA's PUT", w, f.hpa.update(t, w, 0), 0)
		f.expect(t, "a wake", w, f.hpa.update(t, w, 1), 1)
		f.expect(t, "a person's PATCH", w, f.person.patch(t, w, 0), 0)
	}
}
