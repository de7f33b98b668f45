package drain

import (
	"math"
	"strconv"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// busyCost is what the cost of every busy pod is above. It is far from 0, so that a
// cost that people give their pods by hand does not come between idle and busy ones.
const busyCost = 1_000_000

// Costs returns the value of the annotation controller.kubernetes.io/pod-deletion-cost
// for each pod of a fleet that should have one, by the pod's name: the busy ones,
// those of which nobody knows included. The more tasks would have to end, the higher.
// Idle pods and starting ones have none, which counts as 0 and so goes first; pods
// that are being deleted concern nobody any more.
func Costs(f fleet.Fleet) map[string]string {
	costs := map[string]string{}
	for _, m := range f.Members {
		if m.State.IsBusy() && !m.Terminating {
			costs[m.Pod] = cost(tasks(m))
		}
	}
	return costs
}

// tasks is how many tasks a busy pod executes, at least 1. Where nobody knows, it is
// as many as the pod has slots for.
func tasks(m fleet.Member) int64 {
	count := m.Active
	if count.Err != nil {
		count = m.Slots
	}
	if count.Err != nil {
		return 1
	}
	return max(count.N, 1)
}

// cost is that of a pod with so many tasks, within the 32 bits that it may have.
func cost(tasks int64) string {
	return strconv.FormatInt(busyCost+min(tasks, math.MaxInt32-busyCost), 10)
}
