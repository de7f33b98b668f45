package target

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// obstacles lists what of an HPA, its annotations and metrics aside, keeps its target
// from going to zero or from coming back.
func (t Target) obstacles() error {
	var errs []error
	if t.Kind == "" || t.Name == "" {
		errs = append(errs, errors.New("spec.scaleTargetRef lacks a kind or a name: there is nothing to scale"))
	}
	if !slices.ContainsFunc(t.Signals, func(s Signal) bool { return queue.IsMetric(s.Metric) }) {
		errs = append(errs, errors.New("the HPA scales on no metric of a queue, so nothing would tell when to come back from zero: "+
			"add celery_queue_tasks with a selector of the target's queues"))
	}
	if floor := t.floor(); floor > t.MaxReplicas {
		errs = append(errs, fmt.Errorf("spec.maxReplicas is %d, below the %d that there must be when there is work", t.MaxReplicas, floor))
	}
	if t.selectPolicy() == autoscalingv2.DisabledPolicySelect {
		errs = append(errs, errors.New("spec.behavior.scaleUp.selectPolicy is Disabled, so the target could not come back from zero: use Max or Min"))
	}
	return errors.Join(errs...)
}

// floor is the least size while there is work.
func (t Target) floor() int32 { return max(1, t.MinReplicas) }

// scaled identifies what an HPA scales, whatever version of its API group the HPA
// names.
type scaled struct{ namespace, group, kind, name string }

func (t Target) scaled() scaled {
	group, _, found := strings.Cut(t.APIVersion, "/")
	if !found {
		group = "" // the core group is a version alone
	}
	return scaled{t.Namespace, group, t.Kind, t.Name}
}

// shared returns the indices of those targets that are one for several HPAs, one of
// them ours, grouped and in their order.
func shared(targets []Target) [][]int {
	by := map[scaled][]int{}
	for i, t := range targets {
		by[t.scaled()] = append(by[t.scaled()], i)
	}
	var groups [][]int
	for i, t := range targets {
		group := by[t.scaled()]
		ours := slices.ContainsFunc(group, func(i int) bool { return targets[i].ours() })
		if i == group[0] && len(group) > 1 && ours && t.Name != "" {
			groups = append(groups, group)
		}
	}
	return groups
}

// refuseShared makes it a mistake to go to zero for each of a group of HPAs with one
// target: the HPA controller does not scale it then (condition AmbiguousSelector).
func refuseShared(targets []Target, group []int) {
	for _, i := range group {
		t := &targets[i]
		if !t.Zero.Wanted {
			continue
		}
		var others []string
		for _, j := range group {
			if j != i {
				others = append(others, targets[j].HPA)
			}
		}
		t.Zero.Mistake = errors.Join(t.Zero.Mistake, fmt.Errorf(
			"%s is scaled by another HorizontalPodAutoscaler, too (%s), and the HPA controller then scales it by none: give it one with all metrics",
			t, strings.Join(others, ", ")))
	}
}
