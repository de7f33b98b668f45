package slim

import (
	"maps"
	"slices"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// Down drops of an object what nobody here reads: with thousands of pods it is most
// of the memory. It is a transform of informers.
func Down(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Pod:
		return slimPod(o), nil
	case *appsv1.Deployment:
		return &appsv1.Deployment{
			ObjectMeta: slimMeta(o.ObjectMeta), Spec: appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Selector: o.Spec.Selector},
			Status: appsv1.DeploymentStatus{Replicas: o.Status.Replicas},
		}, nil
	case *appsv1.StatefulSet:
		return &appsv1.StatefulSet{
			ObjectMeta: slimMeta(o.ObjectMeta),
			Spec:       appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas, Selector: o.Spec.Selector, Ordinals: o.Spec.Ordinals},
			Status:     appsv1.StatefulSetStatus{Replicas: o.Status.Replicas},
		}, nil
	}
	return object, nil // a tombstone
}

func slimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

func slimPod(p *corev1.Pod) *corev1.Pod {
	kept := &corev1.Pod{ObjectMeta: slimMeta(p.ObjectMeta)}
	kept.OwnerReferences, kept.DeletionTimestamp = p.OwnerReferences, p.DeletionTimestamp
	kept.Labels = shared(p.Labels)
	kept.Annotations = writable(p.Annotations)
	kept.Spec = corev1.PodSpec{
		Hostname: p.Spec.Hostname, HostNetwork: p.Spec.HostNetwork, NodeName: p.Spec.NodeName,
		Containers: make([]corev1.Container, len(p.Spec.Containers)),
	}
	kept.Status.Phase = p.Status.Phase
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			kept.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		kept.Status.ContainerStatuses = append(kept.Status.ContainerStatuses, corev1.ContainerStatus{RestartCount: c.RestartCount})
	}
	return kept
}

// shared has pods of the same labels share the text of them. It is given up with the
// last of them.
func shared(labels map[string]string) map[string]string {
	kept := make(map[string]string, len(labels))
	for key, value := range labels {
		kept[unique.Make(key).Value()] = unique.Make(value).Value()
	}
	return kept
}

// writable keeps the annotations that celery-hpa may write.
func writable(annotations map[string]string) map[string]string {
	kept := maps.Clone(annotations)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		return !slices.Contains(v1alpha1.PodAnnotations(), key)
	})
	if len(kept) == 0 {
		return nil
	}
	return kept
}
