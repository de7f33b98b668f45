package fleet

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Notify has a function called whenever a Deployment or StatefulSet appears or
// disappears, or its scale changes, and once for each as soon as the fleets of its
// namespace are known. Of a namespace that is no more watched nothing is told. Calls may
// come at the same time. The function must return soon, since others wait for it; it may
// call the watcher, but for Watch and Wait. Notify itself is called before Watch.
func (w *Watcher) Notify(changed func(Ref)) { w.changed = changed }

// Scale returns the scale of a Deployment or StatefulSet, as it was last seen. The error
// wraps ErrNoFleet or ErrNotWatched.
func (w *Watcher) Scale(ref Ref) (Scale, error) {
	s, err := w.space(ref.Namespace)
	if err != nil {
		return Scale{}, err
	}
	object, exists := s.owner(ref)
	if !exists {
		return Scale{}, fmt.Errorf("%w: %s", ErrNoFleet, ref)
	}
	return scaleOf(object)
}

// scaleOf is the scale of a Deployment or StatefulSet as the API server makes it
// (k8s.io/kubernetes/pkg/registry/apps/deployment/storage/storage.go, scaleFromDeployment).
func scaleOf(object any) (Scale, error) {
	var meta metav1.ObjectMeta
	var wanted *int32
	var pods int32
	var chosen *metav1.LabelSelector
	switch o := object.(type) {
	case *appsv1.Deployment:
		meta, wanted, pods, chosen = o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	case *appsv1.StatefulSet:
		meta, wanted, pods, chosen = o.ObjectMeta, o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	}
	selector, err := metav1.LabelSelectorAsSelector(chosen)
	if err != nil {
		return Scale{}, fmt.Errorf("the selector of the pods of %s/%s: %w", meta.Namespace, meta.Name, err)
	}
	return Scale{
		Replicas: replicasOf(wanted), Pods: pods, Selector: selector.String(), UID: meta.UID, ResourceVersion: meta.ResourceVersion,
	}, nil
}

// replicasOf is 1 where nothing is said, as in Kubernetes.
func replicasOf(wanted *int32) int32 {
	if wanted == nil {
		return 1
	}
	return *wanted
}

// notify has changes of scales told, those to come and what is there once all is known.
func (s *space) notify(ctx context.Context, changed func(Ref)) {
	for kind, informer := range map[Kind]cache.SharedIndexInformer{Deployment: s.deployments, StatefulSet: s.sets} {
		tell := func(object any) {
			key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
			if err == nil && s.synced() {
				changed(s.refOf(kind, key))
			}
		}
		_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: tell, DeleteFunc: tell,
			UpdateFunc: func(before, after any) {
				if !isSameScale(before, after) {
					tell(after)
				}
			},
		})
	}
	s.telling.Go(func() {
		if !cache.WaitFor(ctx, "", s.pods.HasSyncedChecker(), s.deployments.HasSyncedChecker(), s.sets.HasSyncedChecker()) {
			return
		}
		for _, ref := range s.refs() {
			changed(ref)
		}
	})
}

// isSameScale reports whether nothing has changed between two versions of an object but
// what is no matter of its scale.
func isSameScale(before, after any) bool {
	old, errBefore := scaleOf(before)
	now, errAfter := scaleOf(after)
	old.ResourceVersion = now.ResourceVersion
	return errBefore == nil && errAfter == nil && old == now
}
