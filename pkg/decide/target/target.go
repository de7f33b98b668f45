package target

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Target is a HorizontalPodAutoscaler as celery-hpa sees it.
type Target struct {
	// Namespace is that of the HPA and of what it scales; HPA is its own name.
	Namespace, HPA string
	// APIVersion, Kind and Name are of what it scales.
	APIVersion, Kind, Name string
	// Metrics are the names of celery-hpa's metrics that it scales on, sorted. An
	// HPA without any is none of ours.
	Metrics []string
	// MinReplicas is 1 where the HPA does not say, as in Kubernetes.
	MinReplicas, MaxReplicas int32
	// ProtectNodes tells whether node autoscalers are to be kept from nodes with
	// busy workers.
	ProtectNodes bool
	// UID is the HPA's identity.
	UID types.UID
	// Signals are those of its metrics that are ours, in the HPA's order; Foreign
	// describes the others, like "Resource cpu".
	Signals []Signal
	Foreign []string
	// ScaleUp is what the HPA says of scaling up (spec.behavior.scaleUp), nil if it
	// says nothing.
	ScaleUp *autoscalingv2.HPAScalingRules
	// Zero is what the annotations say of going to zero.
	Zero Zero
}

// Signal is a metric of ours that an HPA scales on.
type Signal struct {
	// Metric is its name, in lower case.
	Metric string
	// Selector chooses the queues or fleets whose values are summed.
	Selector labels.Selector
	// PerReplica is true for a target of AverageValue, false for one of Value.
	PerReplica bool
	// Milli is the target's value, in thousandths; above zero.
	Milli int64
}

// Zero is what an HPA's annotations say of going to zero and back.
type Zero struct {
	// Wanted tells whether it is asked for.
	Wanted bool
	// Window is for how long there must have been nothing to do.
	Window time.Duration
	// Paused holds the target at its size.
	Paused bool
	// Mistake says why nothing is done although it is asked for: an annotation that
	// says what it must not, an HPA that says nothing of a queue, two HPAs on one
	// target. Nil if all is well, or nothing asked for.
	Mistake error
}

// String is like "Deployment airflow/worker".
func (t Target) String() string { return t.Kind + " " + t.Namespace + "/" + t.Name }

// Equal tells whether t and other say the same.
func (t Target) Equal(other Target) bool { return reflect.DeepEqual(t, other) }

// IsDeployment tells whether the target is a Deployment of Kubernetes itself.
func (t Target) IsDeployment() bool { return t.isApp("Deployment") }

// IsStatefulSet tells whether the target is a StatefulSet of Kubernetes itself.
func (t Target) IsStatefulSet() bool { return t.isApp("StatefulSet") }

func (t Target) isApp(kind string) bool {
	return t.Kind == kind && strings.HasPrefix(t.APIVersion, "apps/")
}

// Metrics lists the names of the metrics that make an HPA one of ours: those of
// queues, and those of worker fleets.
func Metrics() []string {
	names := []string{"celery_busy_workers", "celery_worker_active_tasks", "celery_worker_slots"}
	for _, m := range queue.Metrics() {
		names = append(names, m.Name)
	}
	return names
}

// Of reads an HPA, which it does not change. The error lists the annotations that
// say what they must not, without effect on what else is returned: such an
// annotation counts as not set.
func Of(hpa *autoscalingv2.HorizontalPodAutoscaler) (Target, error) {
	scaled := hpa.Spec.ScaleTargetRef
	t := Target{
		Namespace: hpa.Namespace, HPA: hpa.Name,
		APIVersion: scaled.APIVersion, Kind: scaled.Kind, Name: scaled.Name,
		Metrics:     metricsOf(hpa),
		MinReplicas: 1, MaxReplicas: hpa.Spec.MaxReplicas,
	}
	if hpa.Spec.MinReplicas != nil {
		t.MinReplicas = *hpa.Spec.MinReplicas
	}
	err := t.annotate(hpa.Annotations)
	if err != nil {
		err = fmt.Errorf("HorizontalPodAutoscaler %s/%s: %w", hpa.Namespace, hpa.Name, err)
	}
	return t, err
}

// metricsOf names each of our metrics that an HPA scales on once, sorted. client-go
// asks for metrics in lower case, however the HPA writes them.
func metricsOf(hpa *autoscalingv2.HorizontalPodAutoscaler) []string {
	ours := Metrics()
	var names []string
	for _, m := range hpa.Spec.Metrics {
		if m.Type != autoscalingv2.ExternalMetricSourceType || m.External == nil {
			continue
		}
		if name := strings.ToLower(m.External.Metric.Name); slices.Contains(ours, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// annotate heeds the annotations of an HPA.
func (t *Target) annotate(annotations map[string]string) error {
	var errs []error
	known := v1alpha1.HPAAnnotations()
	for key := range annotations {
		if strings.HasPrefix(key, v1alpha1.AnnotationPrefix) && !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("there is no annotation %s; there are: %s", key, strings.Join(known, ", ")))
		}
	}
	protect, err := boolean(annotations, v1alpha1.AnnotationProtectNodes)
	t.ProtectNodes = protect
	errs = append(errs, err)
	if protect && len(t.Metrics) == 0 {
		errs = append(errs, fmt.Errorf("annotation %s has no effect: the HPA scales on no metric of celery-hpa", v1alpha1.AnnotationProtectNodes))
	}
	slices.SortFunc(errs, compareText)
	return errors.Join(errs...)
}

// boolean is an annotation that is "true" or "false", the latter where it is not set.
func boolean(annotations map[string]string, key string) (bool, error) {
	switch value, set := annotations[key]; {
	case !set || value == "false":
		return false, nil
	case value == "true":
		return true, nil
	default:
		return false, fmt.Errorf(`annotation %s is %q: it must be "true" or "false"`, key, value)
	}
}

// compareText orders errors by what they say, nil first, so that the same mistakes
// always read the same.
func compareText(a, b error) int { return strings.Compare(text(a), text(b)) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
