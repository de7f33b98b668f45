package drain

import (
	"context"
	"errors"
	"fmt"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// Marker writes the costs of pods. Make it with NewMarker. It is safe for concurrent
// use, and several replicas of celery-hpa may each have one: they write the same.
//
// Kubernetes advises against writing costs often, since each is a write to the API
// server and a sort for nothing. So they are written when a fleet is about to be
// scaled down, and only those that differ.
type Marker struct {
	pods corev1client.PodsGetter
}

// NewMarker makes a marker. It needs the right to patch pods, and a client that does
// not limit itself to client-go's default of 5 requests per second.
func NewMarker(pods corev1client.PodsGetter) *Marker { return &Marker{pods: pods} }

// Mark makes the costs of a fleet's pods what Costs says: first those of busy pods,
// then it takes off those of pods that are idle by now. It blocks until all are
// written or ctx is done; an error says how many are not, and then others may be.
//
// A cost that celery-hpa has not written stays as it is, on busy pods as on idle ones
// (see v1alpha1.AnnotationDeletionCostNote): whoever gives costs himself has his own
// order. A pod that is gone, or replaced by one of the same name, is no error.
func (m *Marker) Mark(ctx context.Context, f fleet.Fleet) error {
	raised, lowered := costChanges(f)
	if err := errors.Join(applyAll(ctx, m.pods, raised), applyAll(ctx, m.pods, lowered)); err != nil {
		return fmt.Errorf("mark the victims of %s: %w", f.Ref, err)
	}
	return nil
}

// costChanges are the changes that give pods the cost that they should have, and
// those that take one off.
func costChanges(f fleet.Fleet) (raised, lowered []change) {
	costs := Costs(f)
	for _, m := range f.Members {
		present, note := m.Annotations[v1alpha1.AnnotationDeletionCost], m.Annotations[v1alpha1.AnnotationDeletionCostNote]
		wanted := costs[m.Pod]
		if m.Terminating || present == wanted || present != "" && present != note {
			continue
		}
		c := newChange(f, m)
		if wanted == "" {
			c.remove(v1alpha1.AnnotationDeletionCost)
			c.remove(v1alpha1.AnnotationDeletionCostNote)
			lowered = append(lowered, c)
			continue
		}
		c.put(v1alpha1.AnnotationDeletionCost, wanted)
		c.put(v1alpha1.AnnotationDeletionCostNote, wanted)
		raised = append(raised, c)
	}
	return raised, lowered
}
