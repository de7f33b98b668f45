package target

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// The formulas are those of Kubernetes 1.37.2, pkg/controller/podautoscaler:
// replica_calculator.go is "calculator" below, horizontal.go "controller".

// defaultTolerance is how far a value may be off its target without effect, as a share
// (kube-controller-manager, --horizontal-pod-autoscaler-tolerance).
const defaultTolerance = 0.1

// Value is what a signal says at one moment.
type Value struct {
	// Milli is the sum over all that the signal's selector chooses, in thousandths.
	Milli int64
	// Err says why it is not known; Milli means nothing then.
	Err error
}

// Wanted returns the size that the HPA would give its target by these values, one for
// each of Signals, in their order: 0 if there is nothing to do and nobody to do it,
// else from max(1, MinReplicas) to MaxReplicas. Values that are not known are left
// out, as are the metrics in Foreign; it is an error if none is known.
//
// current is the size now (spec.replicas), base the one at which the present raise
// began, 0 for a wake. What an HPA says of how fast to scale up is kept to: its
// policies allow for what they say beyond base, as if all of it were within their
// period. The HPA's minimum counts more than they do (controller, lines 929 and 981),
// so that one worker comes even where the HPA itself would stay at zero for ever; see
// StaysAtZero. A size outside the bounds the HPA first brings to the nearest, and
// computes at its next look; Wanted says at once where that leads.
//
// Not kept to is the pace that the HPA keeps unasked, four more or twice as many every
// 15 seconds, and scaleUp.stabilizationWindowSeconds, which needs a memory. Of what
// the HPA would remove Wanted knows less: stabilization, policies of scaling down and
// their tolerance are left out.
func (t Target) Wanted(current, base int32, values []Value) (int32, error) {
	wanted, err := t.proposed(current, values)
	if err != nil {
		return 0, fmt.Errorf("compute the size of %s for HorizontalPodAutoscaler %s: %w", t, t.HPA, err)
	}
	if current == 0 && wanted == 0 {
		return 0, nil
	}
	// The limit is no reason to scale down (controller, lines 1325 to 1340).
	wanted = min(wanted, max(t.limit(base), current))
	return min(max(wanted, t.floor()), t.MaxReplicas), nil
}

// StaysAtZero tells whether the HPA by its own rules could never leave zero, since
// they let it add nothing to nothing: where all its policies are in percent, or one
// is and the lowest counts.
func (t Target) StaysAtZero() bool { return t.limit(0) == 0 }

// proposed is the largest size that a known signal asks for (controller, line 405).
func (t Target) proposed(current int32, values []Value) (int32, error) {
	if len(values) != len(t.Signals) {
		return 0, fmt.Errorf("%d values for %d metrics", len(values), len(t.Signals))
	}
	var wanted int32
	var errs []error
	for i, s := range t.Signals {
		switch {
		case values[i].Err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", s.Metric, values[i].Err))
		case s.Milli <= 0:
			errs = append(errs, fmt.Errorf("%s: its target is not above zero", s.Metric))
		default:
			wanted = max(wanted, s.proposal(current, values[i].Milli, t.tolerance()))
		}
	}
	if len(errs) == len(t.Signals) {
		return 0, errors.Join(append(errs, errors.New("no metric is known"))...)
	}
	return wanted, nil
}

// proposal is the size that a value asks for: the HPA's, as far as that can be known
// here. What is per replica, the HPA shares among status.replicas, which follows the
// size within moments. For others it multiplies by the number of pods that are ready
// (calculator, line 282); here it counts as one, and a size that is reached is kept.
func (s Signal) proposal(current int32, milli int64, up float64) int32 {
	// Calculator, lines 303 and 405. Above the largest number is the largest number.
	size := int32(min(max(0, math.Ceil(float64(milli)/float64(s.Milli))), math.MaxInt32))
	if current == 0 {
		return size
	}
	ratio := float64(milli) / float64(s.Milli)
	if s.PerReplica {
		ratio = float64(milli) / (float64(s.Milli) * float64(current)) // calculator, line 402
	}
	if 1-defaultTolerance <= ratio && ratio <= 1+up { // calculator, line 56
		return current
	}
	if s.PerReplica {
		return size
	}
	return max(size, current)
}

// tolerance is how far a value may be above its target (controller, line 1575).
func (t Target) tolerance() float64 {
	if t.ScaleUp != nil && t.ScaleUp.Tolerance != nil {
		return t.ScaleUp.Tolerance.AsApproximateFloat64()
	}
	return defaultTolerance
}

// limit is the largest size to which the HPA's policies let it scale up from base
// (controller, line 1434); without any that differ from the defaults there is none.
func (t Target) limit(base int32) int32 {
	if t.selectPolicy() == autoscalingv2.DisabledPolicySelect {
		return base
	}
	if t.ScaleUp == nil || len(t.ScaleUp.Policies) == 0 {
		return math.MaxInt32
	}
	var limits []float64
	for _, p := range t.ScaleUp.Policies {
		limit := float64(base) + float64(p.Value)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			limit = math.Ceil(float64(base) * (1 + float64(p.Value)/100))
		}
		limits = append(limits, limit)
	}
	limit := slices.Max(limits)
	if t.selectPolicy() == autoscalingv2.MinChangePolicySelect {
		limit = slices.Min(limits)
	}
	return int32(min(limit, math.MaxInt32))
}

// selectPolicy tells which of several policies counts.
func (t Target) selectPolicy() autoscalingv2.ScalingPolicySelect {
	if t.ScaleUp != nil && t.ScaleUp.SelectPolicy != nil {
		return *t.ScaleUp.SelectPolicy
	}
	return autoscalingv2.MaxChangePolicySelect
}

// scaleUpOf takes from a behavior what it says of scaling up, without what are the
// defaults (pkg/apis/autoscaling/v2/defaults.go of Kubernetes 1.37.2): the API server
// fills them in wherever there is a behavior, even one for scaling down alone.
func scaleUpOf(behavior *autoscalingv2.HorizontalPodAutoscalerBehavior) *autoscalingv2.HPAScalingRules {
	if behavior == nil || behavior.ScaleUp == nil {
		return nil
	}
	up := behavior.ScaleUp.DeepCopy()
	up.StabilizationWindowSeconds = unless(up.StabilizationWindowSeconds, 0)
	up.SelectPolicy = unless(up.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if up.SelectPolicy == nil && slices.Equal(up.Policies, defaultPolicies()) {
		up.Policies = nil
	}
	if reflect.ValueOf(*up).IsZero() {
		return nil
	}
	return up
}

// unless is what is set, or nil if that is the usual.
func unless[T comparable](set *T, usual T) *T {
	if set != nil && *set == usual {
		return nil
	}
	return set
}

func defaultPolicies() []autoscalingv2.HPAScalingPolicy {
	return []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
		{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	}
}
