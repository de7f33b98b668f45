package target

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Target is a HorizontalPodAutoscaler as celery-hpa sees it.
type Target struct {
	// Namespace is that of the HPA and of what it scales; HPA is its own name.
	Namespace, HPA string
	// APIVersion, Kind and Name are of what it scales.
	APIVersion, Kind, Name string
	// Metrics are the names of celery-hpa's metrics that it scales on, sorted. An
	// HPA without any is none of ours, unless it asks to go to zero.
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
	// ScaleUp is what the HPA says of scaling up (spec.behavior.scaleUp) that differs
	// from the defaults, nil if nothing does. The API server writes the defaults into
	// every behavior, so that nobody can tell whether they were meant.
	ScaleUp *autoscalingv2.HPAScalingRules
	// Zero is what the annotations say of going to zero.
	Zero Zero
}

// Signal is a metric of ours that an HPA scales on.
type Signal struct {
	// Metric is its name, in lower case.
	Metric string
	// Selector chooses the queues or fleets whose values are summed: nothing, if it
	// cannot be read, which is a mistake.
	Selector labels.Selector
	// PerReplica is true for a target of AverageValue, false for one of Value.
	PerReplica bool
	// Milli is the target's value, in thousandths: above zero, or it is a mistake.
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

// Of reads an HPA, which it does not change. The error lists the annotations that
// say what they must not, without effect on what else is returned: such an
// annotation counts as not set. Only scale-to-zero counts as asked for, whatever it
// says but "false"; with any mistake nothing comes of it, and Zero.Mistake tells.
func Of(hpa *autoscalingv2.HorizontalPodAutoscaler) (Target, error) {
	scaled := hpa.Spec.ScaleTargetRef
	t := Target{
		Namespace: hpa.Namespace, HPA: hpa.Name, UID: hpa.UID,
		APIVersion: scaled.APIVersion, Kind: scaled.Kind, Name: scaled.Name,
		MinReplicas: 1, MaxReplicas: hpa.Spec.MaxReplicas,
		ScaleUp: scaleUpOf(hpa.Spec.Behavior),
	}
	if hpa.Spec.MinReplicas != nil {
		t.MinReplicas = *hpa.Spec.MinReplicas
	}
	unclear := t.measure(hpa.Spec.Metrics)
	err := t.annotate(hpa.Annotations)
	if t.Zero.Wanted {
		t.Zero.Mistake = errors.Join(err, t.obstacles(), unclear)
	}
	if err != nil {
		err = fmt.Errorf("HorizontalPodAutoscaler %s/%s: %w", hpa.Namespace, hpa.Name, err)
	}
	return t, err
}

// ours tells whether an HPA scales on a metric of ours, or asks to go to zero.
func (t Target) ours() bool { return len(t.Metrics) > 0 || t.Zero.Wanted }
