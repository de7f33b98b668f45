package drain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

func worker() fleet.Ref {
	return fleet.Ref{Namespace: "airflow", Kind: fleet.Deployment, Name: "worker"}
}

// world is one fleet whose pods take patches in no time, so that a test can let time
// pass. What real pods do with them is proven against a real API server (test/scaledown).
type world struct {
	corev1client.PodInterface

	mu      sync.Mutex
	fleet   fleet.Fleet
	failing error // of Fleet
	refuse  error // of every patch
	targets []target.Target
	patches []string // "pod: key=value key-", in order
}

func newWorld(members ...fleet.Member) *world {
	for i := range members {
		m := &members[i]
		m.UID = types.UID(m.Pod)
		m.Annotations = maps.Clone(m.Annotations)
		if m.Annotations == nil {
			m.Annotations = map[string]string{}
		}
	}
	return &world{fleet: fleet.Fleet{Ref: worker(), Members: members, Heard: true}}
}

func (w *world) change(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// become gives every pod a state.
func (w *world) become(s fleet.State) {
	w.change(func() {
		for i := range w.fleet.Members {
			w.fleet.Members[i].State = s
		}
	})
}

func (w *world) All() []target.Target {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.targets
}

func (w *world) Fleet(ref fleet.Ref) (fleet.Fleet, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing != nil || ref != w.fleet.Ref {
		return fleet.Fleet{}, fmt.Errorf("%w: %s", fleet.ErrNoFleet, ref)
	}
	f := w.fleet
	f.Members = slices.Clone(f.Members)
	for i := range f.Members {
		f.Members[i].Annotations = maps.Clone(f.Members[i].Annotations)
	}
	return f, nil
}

func (w *world) Pods(string) corev1client.PodInterface { return w }

func (w *world) Patch(ctx context.Context, pod string, _ types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Pod, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var parsed struct {
		Metadata struct {
			UID         string
			Annotations map[string]*string
		}
	}
	if err := json.Unmarshal(patch, &parsed); err != nil || parsed.Metadata.UID != pod {
		return nil, fmt.Errorf("patch %s of pod %s: %w", patch, pod, err)
	}
	i := slices.IndexFunc(w.fleet.Members, func(m fleet.Member) bool { return m.Pod == pod })
	w.patches = append(w.patches, pod+": "+applied(w.fleet.Members[i].Annotations, parsed.Metadata.Annotations))
	return &corev1.Pod{}, nil
}

// applied applies changes and returns them, sorted.
func applied(annotations map[string]string, changes map[string]*string) string {
	var texts []string
	for key, value := range changes {
		if value == nil {
			delete(annotations, key)
			texts = append(texts, key+"-")
			continue
		}
		annotations[key] = *value
		texts = append(texts, key+"="+*value)
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// take returns the patches since it was last called.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	patches := w.patches
	w.patches = nil
	return patches
}

// annotations are those of the first pod.
func (w *world) annotations(t *testing.T) map[string]string {
	t.Helper()
	f, err := w.Fleet(worker())
	if err != nil {
		t.Fatal(err)
	}
	return f.Members[0].Annotations
}
