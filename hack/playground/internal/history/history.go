package history

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Change is a number of replicas that the fleet is to have (spec.replicas), and when
// a watch has seen it.
type Change struct {
	At       time.Time
	Replicas int32
}

// String is like "10 at 15:04:05.000".
func (c Change) String() string {
	return fmt.Sprintf("%d at %s", c.Replicas, c.At.Format("15:04:05.000"))
}

// History is all that a watch has seen. It is safe for concurrent use.
type History struct {
	mu      sync.Mutex
	changes []Change
	ended   error // why the watch sees nothing more
}

// Changes returns them in order, and why there are no more, if there are none.
func (h *History) Changes() ([]Change, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.changes), h.ended
}

// Keep takes in events until there are no more.
func (h *History) Keep(events <-chan watch.Event) {
	for event := range events {
		h.see(wanted(event.Object), time.Now())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = errors.New("the watch of the workers' replicas has ended: what came after is not known")
}

func (h *History) see(replicas *int32, at time.Time) {
	if replicas == nil {
		return // no event of a fleet
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.changes); n == 0 || h.changes[n-1].Replicas != *replicas {
		h.changes = append(h.changes, Change{At: at, Replicas: *replicas})
	}
}

// wanted is spec.replicas of a Deployment or StatefulSet.
func wanted(object runtime.Object) *int32 {
	switch fleet := object.(type) {
	case *appsv1.Deployment:
		return fleet.Spec.Replicas
	case *appsv1.StatefulSet:
		return fleet.Spec.Replicas
	}
	return nil
}
