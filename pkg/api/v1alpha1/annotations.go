package v1alpha1

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// AnnotationPrefix begins every annotation whose meaning celery-hpa decides.
const AnnotationPrefix = Group + "/"

// Annotations of a HorizontalPodAutoscaler: what it asks of celery-hpa.
const (
	// AnnotationProtectNodes is "true" or "false", the default. With "true", pods of
	// the HPA's target that may execute a task are annotated so that node autoscalers
	// leave their nodes alone; see AnnotationSafeToEvict and AnnotationDoNotDisrupt.
	AnnotationProtectNodes = AnnotationPrefix + "protect-nodes"
	// AnnotationScaleToZero is "true" or "false", the default. With "true", the HPA's
	// target goes to zero when there has been nothing to do for the idle window, and
	// comes back with the first message.
	AnnotationScaleToZero = AnnotationPrefix + "scale-to-zero"
	// AnnotationIdleWindow is for how long without a break there must have been
	// nothing to do, as a duration of Go: from MinIdleWindow to MaxIdleWindow,
	// DefaultIdleWindow where it is not set.
	AnnotationIdleWindow = AnnotationPrefix + "idle-window"
	// AnnotationPaused is "true" or "false", the default. With "true", celery-hpa
	// leaves the target at its size, at zero too: neither down nor back.
	AnnotationPaused = AnnotationPrefix + "paused"
)

// Bounds of AnnotationIdleWindow.
const (
	// DefaultIdleWindow is as long as the HPA by default waits before it scales down
	// (kube-controller-manager, --horizontal-pod-autoscaler-downscale-stabilization).
	DefaultIdleWindow = 5 * time.Minute
	// MinIdleWindow is the time from one sample to the next (DefaultInterval): less
	// would be no window but one look.
	MinIdleWindow = time.Second
	// MaxIdleWindow is a week. Who means more means "never", which AnnotationPaused
	// says better.
	MaxIdleWindow = 7 * 24 * time.Hour
)

// HPAAnnotations lists the annotations of a HorizontalPodAutoscaler that mean
// something to celery-hpa.
func HPAAnnotations() []string {
	return []string{AnnotationProtectNodes, AnnotationScaleToZero, AnnotationIdleWindow, AnnotationPaused}
}

// Annotations of pods that celery-hpa writes. Each has a note beside it, written in
// the same request, that tells what celery-hpa has written. An annotation whose note
// is missing or says something else was written by somebody else: a person, the
// pod's template or another controller. That is left alone, whatever it says.
const (
	// AnnotationDeletionCost is what the ReplicaSet controller sorts by when it has
	// to choose which pods to remove: lower goes first, a missing one is 0.
	AnnotationDeletionCost = corev1.PodDeletionCost
	// AnnotationDeletionCostNote holds the cost that celery-hpa has written.
	AnnotationDeletionCostNote = AnnotationPrefix + "deletion-cost"

	// AnnotationSafeToEvict is read by Kubernetes' cluster autoscaler (FAQ, "What
	// types of pods can prevent CA from removing a node?"): "false" keeps the node.
	AnnotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	// AnnotationDoNotDisrupt is read by Karpenter (Disruption, "Pod-Level Controls"):
	// "true" keeps the node.
	AnnotationDoNotDisrupt = "karpenter.sh/do-not-disrupt"
	// AnnotationNodeProtectionNote lists those of the two that celery-hpa has
	// written, separated by commas.
	AnnotationNodeProtectionNote = AnnotationPrefix + "node-protection"
)

// PodAnnotations lists the annotations of pods that celery-hpa writes and, to know
// what is its own, reads.
func PodAnnotations() []string {
	return []string{
		AnnotationDeletionCost, AnnotationDeletionCostNote,
		AnnotationSafeToEvict, AnnotationDoNotDisrupt, AnnotationNodeProtectionNote,
	}
}
