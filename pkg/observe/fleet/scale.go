package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Scale is the size of a Deployment or StatefulSet.
type Scale struct {
	// Replicas is spec.replicas, Pods status.replicas, which counts no pod that is
	// being deleted.
	Replicas, Pods int32
	// Selector is that of its pods.
	Selector string
	UID      types.UID
	// ResourceVersion is that of the object, and so of its scale subresource.
	ResourceVersion string
}

// Scale returns the size of a Deployment or StatefulSet as it is now. The error wraps
// ErrNoFleet or ErrNotWatched.
func (w *Watcher) Scale(ref Ref) (Scale, error) {
	s, err := w.space(ref.Namespace)
	if err != nil {
		return Scale{}, err
	}
	object, exists, _ := s.owners(ref.Kind).GetByKey(ref.Namespace + "/" + ref.Name) // fails for no key
	if !exists {
		return Scale{}, fmt.Errorf("%w: %s", ErrNoFleet, ref)
	}
	_, scale := sizeOf(object)
	return scale, nil
}

// Notify has a function called whenever spec.replicas or status.replicas of a
// Deployment or StatefulSet has changed, or one has come or gone. It is to be called
// before Watch; the function must not block.
func (w *Watcher) Notify(resized func(Ref)) { w.resized = resized }

// sizes tells of Deployments and StatefulSets whose size has changed.
func (s *space) sizes() cache.ResourceEventHandler {
	tell := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if ref, _ := sizeOf(object); s.resized != nil && ref != (Ref{}) {
			s.resized(ref)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: tell, DeleteFunc: tell,
		UpdateFunc: func(before, after any) {
			_, old := sizeOf(before)
			if _, now := sizeOf(after); old.Replicas != now.Replicas || old.Pods != now.Pods {
				tell(after)
			}
		},
	}
}

// sizeOf names a Deployment or StatefulSet and tells its size; nothing of others.
func sizeOf(object any) (Ref, Scale) {
	var kind Kind
	var meta metav1.ObjectMeta
	var replicas *int32
	var pods int32
	var selector *metav1.LabelSelector
	switch o := object.(type) {
	case *appsv1.Deployment:
		kind, meta, replicas, pods, selector = Deployment, o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	case *appsv1.StatefulSet:
		kind, meta, replicas, pods, selector = StatefulSet, o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	default:
		return Ref{}, Scale{}
	}
	scale := Scale{
		Replicas: 1, Pods: pods, Selector: metav1.FormatLabelSelector(selector),
		UID: meta.UID, ResourceVersion: meta.ResourceVersion,
	}
	if replicas != nil { // which the API server has filled in
		scale.Replicas = *replicas
	}
	return Ref{meta.Namespace, kind, meta.Name}, scale
}

// Selected returns the pods of a namespace that a selector matches, as a fleet without
// a name: the workers of what is neither Deployment nor StatefulSet. It looks at all pods
// of the namespace. A selector that matches everything is refused: it would make
// everybody's pods workers. The error may wrap ErrNotWatched.
func (w *Watcher) Selected(namespace string, selector labels.Selector) (Fleet, error) {
	if selector.Empty() {
		return Fleet{}, errors.New("the pods of what is scaled cannot be told: its scale has no selector (status.selector)")
	}
	s, err := w.space(namespace)
	if err != nil {
		return Fleet{}, err
	}
	f := Fleet{Ref: Ref{Namespace: namespace}}
	for _, object := range s.pods.GetIndexer().List() {
		p := object.(*corev1.Pod)
		if hasEnded(p) || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		m, heard := w.member(s, p, f.Ref, 0)
		f.Members = append(f.Members, m)
		f.Heard = f.Heard || heard
	}
	slices.SortFunc(f.Members, func(a, b Member) int { return strings.Compare(a.Pod, b.Pod) })
	f.Heard = w.everHeard(Ref{Namespace: namespace, Name: selector.String()}, f.Heard)
	return f, nil
}
