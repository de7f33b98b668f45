package target_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

var errBroker = errors.New("the broker does not answer")

// of returns values that are known.
func of(units ...int64) []target.Value {
	var values []target.Value
	for _, u := range units {
		values = append(values, target.Value{Milli: 1000 * u})
	}
	return values
}

func milli(m int64) []target.Value { return []target.Value{{Milli: m}} }

func unknown() target.Value { return target.Value{Milli: 99000, Err: errBroker} }

// average is a signal of so many thousandths per replica, value one of so many in all.
func average(m int64) target.Signal {
	return target.Signal{Metric: "celery_queue_tasks", PerReplica: true, Milli: m}
}

func value(m int64) target.Signal {
	return target.Signal{Metric: "celery_queue_wait_seconds", Milli: m}
}

// wants fails the test unless a target wants a size.
func wants(t *testing.T, tg target.Target, current, base int32, values []target.Value, want int32) {
	t.Helper()
	if got, err := tg.Wanted(current, base, values); got != want || err != nil {
		t.Errorf("Wanted(%d, %d, %v) = %d, %v; want %d", current, base, values, got, err, want)
	}
}

// The formulas quoted are those of pkg/controller/podautoscaler/replica_calculator.go
// of Kubernetes 1.37.2.
func TestASizeIsTheOneThatTheHPAComputes(t *testing.T) {
	const most = math.MaxInt32
	for _, tt := range []struct {
		rule    string
		signal  target.Signal
		current int32
		values  []target.Value
		want    int32
	}{
		// GetExternalPerPodMetricReplicas: math.Ceil(float64(usage) / float64(targetUsagePerPod))
		{"average, from zero: nothing", average(16000), 0, of(0), 0},
		{"average, from zero: one message is one worker", average(16000), 0, of(1), 1},
		{"average, from zero: a thousandth of one is, too", average(math.MaxInt64), 0, milli(1), 1},
		{"average, from zero: full workers", average(16000), 0, of(32), 2},
		{"average, from zero: rounded up", average(16000), 0, of(33), 3},
		{"average, from zero: less than nothing is nothing", average(16000), 0, of(-5), 0},
		{"average, from zero: there is no tolerance", average(10000), 0, of(10), 1},
		{"average, from zero: nor is there for little", average(10000), 0, milli(10001), 2},
		{"average, from zero: thousandths", average(1500), 0, of(3), 2},
		// usageRatio := float64(usage) / (float64(targetUsagePerPod) * float64(replicaCount))
		// (1.0-t.scaleDown) <= usageRatio && usageRatio <= (1.0+t.scaleUp)
		{"average: within the tolerance above", average(10000), 10, of(110), 10},
		{"average: beyond the tolerance", average(10000), 10, milli(110_001), 12},
		{"average: within the tolerance below", average(10000), 10, of(90), 10},
		{"average: beyond the tolerance below", average(10000), 10, milli(89_999), 9},
		{"average: one worker too few", average(1000), 1, of(2), 2},
		{"average: much more", average(1000), 1, of(50), 50},
		{"average: nothing leaves the floor", average(1000), 7, of(0), 1},
		// if replicaCountResult > float64(math.MaxInt32) { replicaCount = math.MaxInt32 }
		{"average, from zero: huge counts", average(1), 0, milli(math.MaxInt64), most},
		{"average: huge counts", average(1), 3, milli(math.MaxInt64), most},
		{"average: huge sizes", average(math.MaxInt64), most, milli(math.MaxInt64), 1},
		// getUsageRatioReplicaCount: replicaCount = int32(math.Ceil(usageRatio))
		{"value, from zero: nothing", value(60000), 0, of(0), 0},
		{"value, from zero: one second of waiting is one worker", value(60000), 0, of(1), 1},
		{"value, from zero: rounded up", value(60000), 0, of(121), 3},
		{"value, from zero: no tolerance", value(60000), 0, of(63), 2},
		{"value, from zero: huge counts", value(1), 0, milli(math.MaxInt64), most},
		// if tolerances.isWithin(usageRatio) { return currentReplicas }
		{"value: within the tolerance above", value(60000), 1, of(66), 1},
		{"value: beyond the tolerance", value(60000), 1, of(67), 2},
		// Unlike the HPA: usageRatio * float64(readyPodCount), which is not known here.
		{"value: a size that is reached is kept", value(60000), 5, of(121), 5},
		{"value: and kept with nothing to do", value(60000), 5, of(0), 5},
		{"value: huge counts", value(1), 5, milli(math.MaxInt64), most},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			wants(t, target.Target{MinReplicas: 1, MaxReplicas: most, Signals: []target.Signal{tt.signal}}, tt.current, 0, tt.values, tt.want)
		})
	}
}

// computeReplicasForMetrics of horizontal.go: replicaCountProposal > replicas.
func TestTheLargestKnownSignalCounts(t *testing.T) {
	three := target.Target{
		Namespace: "airflow", HPA: "worker", Kind: "Deployment", Name: "w", MinReplicas: 1, MaxReplicas: 100,
		Signals: []target.Signal{average(1000), average(2000), value(1000)},
	}
	for _, tt := range []struct {
		rule    string
		current int32
		values  []target.Value
		want    int32
	}{
		{"the first", 0, of(9, 2, 3), 9},
		{"the second", 0, of(1, 20, 3), 10},
		{"the last", 0, of(1, 2, 4), 4},
		{"nothing to do is all at nothing", 0, of(0, 0, 0), 0},
		{"one with something is enough", 0, of(0, 1, 0), 1},
		{"what is not known is left out", 0, []target.Value{unknown(), {Milli: 4000}, unknown()}, 2},
		{"nothing is known to be to do", 0, []target.Value{unknown(), {}, unknown()}, 0},
		{"nor with a worker", 3, []target.Value{{}, unknown(), unknown()}, 1},
	} {
		t.Run(tt.rule, func(t *testing.T) { wants(t, three, tt.current, 0, tt.values, tt.want) })
	}
}

func TestWithoutAnyKnownSignalThereIsNoSize(t *testing.T) {
	tg := target.Target{
		Namespace: "airflow", HPA: "worker", Kind: "Deployment", Name: "w", MinReplicas: 1, MaxReplicas: 100,
		Signals: []target.Signal{average(1000), value(1000)},
	}
	broken, none := tg, tg
	broken.Signals = []target.Signal{average(0), value(-1)}
	none.Signals = nil
	for _, tt := range []struct {
		rule   string
		target target.Target
		values []target.Value
		want   string
	}{
		{"all are unknown", tg, []target.Value{unknown(), unknown()}, "compute the size of Deployment airflow/w for HorizontalPodAutoscaler worker: celery_queue_tasks: the broker does not answer"},
		{"all are without a target", broken, of(1, 1), "celery_queue_tasks: its target is not above zero"},
		{"there is none", none, nil, "no metric is known"},
		{"values are missing", tg, of(1), "1 values for 2 metrics"},
		{"there are too many", tg, of(1, 2, 3), "3 values for 2 metrics"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			for _, current := range []int32{0, 3} {
				got, err := tt.target.Wanted(current, 0, tt.values)
				if got != 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Wanted() = %d, %v; want error %q", got, err, tt.want)
				}
			}
		})
	}
	if _, err := tg.Wanted(0, 0, []target.Value{unknown(), unknown()}); !errors.Is(err, errBroker) {
		t.Errorf("error %v does not wrap its cause", err)
	}
}

// reconcileAutoscaler of horizontal.go: currentReplicas < minReplicas gives
// minReplicas, currentReplicas > MaxReplicas gives MaxReplicas; in between,
// convertDesiredReplicasWithRules keeps to both.
func TestASizeKeepsToTheBounds(t *testing.T) {
	for _, tt := range []struct {
		rule          string
		least, most   int32
		current, want int32
		tasks         int64
	}{
		{"what is between them", 2, 9, 0, 5, 5},
		{"a wake is to the minimum", 2, 9, 0, 2, 1},
		{"a wake is to one at least", 0, 9, 0, 1, 1},
		{"the maximum", 2, 9, 0, 9, 10},
		{"the maximum, from above", 2, 9, 20, 9, 20},
		{"nothing to do", 2, 9, 0, 0, 0},
		{"nothing to do, but workers: the minimum", 2, 9, 5, 2, 0},
		{"nothing to do, but workers: one", 0, 9, 5, 1, 0},
		{"a minimum that was raised", 4, 9, 3, 4, 3},
		{"bounds that contradict: never above the maximum", 9, 2, 0, 2, 5},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			wants(t, target.Target{MinReplicas: tt.least, MaxReplicas: tt.most, Signals: []target.Signal{average(1000)}}, tt.current, 0, of(tt.tasks), tt.want)
		})
	}
}

// calculateScaleUpLimitWithScalingRules of horizontal.go: proposed is
// periodStartReplicas + policy.Value, or
// math.Ceil(float64(periodStartReplicas) * (1 + float64(policy.Value)/100)).
func TestASizeKeepsToThePoliciesOfScalingUp(t *testing.T) {
	const two, tenth, double = "{type: Pods, value: 2, periodSeconds: 60}", "{type: Percent, value: 10, periodSeconds: 60}", "{type: Percent, value: 100, periodSeconds: 60}"
	for _, tt := range []struct {
		rule, bounds, scaleUp string
		current, base, want   int32
		tasks                 int64
	}{
		{"pods, from zero", "", "policies: [" + two + "]", 0, 0, 2, 50},
		{"pods, less is wanted", "", "policies: [" + two + "]", 0, 0, 1, 1},
		{"pods, raised already", "", "policies: [" + two + "]", 2, 0, 2, 50},
		{"pods, in the midst of the raise", "", "policies: [" + two + "]", 1, 0, 2, 50},
		{"pods, beyond the base", "", "policies: [" + two + "]", 5, 5, 7, 50},
		{"a limit is no reason to scale down", "", "policies: [" + two + "]", 6, 0, 6, 50},
		{"what is below is not limited", "", "policies: [" + two + "]", 6, 0, 3, 3},
		{"the minimum counts more", "minReplicas: 5, ", "policies: [" + two + "]", 0, 0, 5, 50},
		{"the maximum, too", "maxReplicas: 1, ", "policies: [" + two + "]", 0, 0, 1, 50},
		{"percent, from zero: one, or there would never be any", "", "policies: [" + double + "]", 0, 0, 1, 50},
		{"percent, from zero: the minimum", "minReplicas: 3, ", "policies: [" + double + "]", 0, 0, 3, 50},
		{"percent", "", "policies: [" + double + "]", 5, 5, 10, 50},
		{"percent, rounded up", "", "policies: [" + tenth + "]", 5, 5, 6, 50},
		{"percent, as floating numbers have it", "maxReplicas: 200, ", "policies: [" + tenth + "]", 100, 100, 111, 500},
		{"the highest counts", "", "policies: [" + two + ", " + double + "]", 5, 5, 10, 50},
		{"the highest counts, the other way round", "", "policies: [" + double + ", " + two + "]", 1, 1, 3, 50},
		{"the highest counts, said so", "", "selectPolicy: Max, policies: [" + two + ", " + double + "]", 5, 5, 10, 50},
		{"the highest counts, from zero", "", "policies: [" + two + ", " + double + "]", 0, 0, 2, 50},
		{"the lowest counts", "", "selectPolicy: Min, policies: [" + two + ", " + double + "]", 5, 5, 7, 50},
		{"the lowest counts, from zero", "", "selectPolicy: Min, policies: [" + two + ", " + double + "]", 0, 0, 1, 50},
		{"huge policies", "maxReplicas: 2147483647, ", "policies: [{type: Pods, value: 2147483647, periodSeconds: 60}]", 7, 7, math.MaxInt32, math.MaxInt64 / 1000},
		{"huge shares", "maxReplicas: 2147483647, ", "policies: [{type: Percent, value: 2147483647, periodSeconds: 60}]", math.MaxInt32 - 1, math.MaxInt32 - 1, math.MaxInt32, math.MaxInt64 / 1000},
		{"disabled: no more than there are", "", "selectPolicy: Disabled, policies: [" + two + "]", 5, 5, 5, 50},
		// defaults.go: what the API server fills in says nothing.
		{"nothing is said", "", "", 0, 0, 50, 50},
		{"the defaults set no bound", "", "stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [" + defaults + "]", 0, 0, 50, 50},
		{"nor do they beside something else", "", `stabilizationWindowSeconds: 30, tolerance: "0.2", selectPolicy: Max, policies: [` + defaults + "]", 0, 0, 50, 50},
		{"the lowest of the defaults does", "", "selectPolicy: Min, policies: [" + defaults + "]", 3, 3, 6, 50},
		// tolerancesForHpa of horizontal.go
		{"the HPA's own tolerance", "", `tolerance: "0.5", policies: [` + defaults + "]", 10, 10, 10, 15},
		{"beyond the HPA's own tolerance", "", `tolerance: "0.5", policies: [` + defaults + "]", 10, 10, 16, 16},
		{"no tolerance", "maxReplicas: 200, ", `tolerance: "0", policies: [` + defaults + "]", 100, 100, 101, 101},
		{"no tolerance upwards is some downwards", "maxReplicas: 200, ", `tolerance: "0", policies: [` + defaults + "]", 100, 100, 100, 90},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			tg, err := target.Of(parse(t, spec(scalingUp(tt.bounds, tt.scaleUp), fmt.Sprintf(tasksOf, "{}"))))
			if err != nil {
				t.Fatal(err)
			}
			wants(t, tg, tt.current, tt.base, of(tt.tasks), tt.want)
		})
	}
}

// defaults are the policies that the API server fills in.
const defaults = "{type: Pods, value: 4, periodSeconds: 15}, {type: Percent, value: 100, periodSeconds: 15}"

// scalingUp is a piece of an HPA's spec; there are at most 50 replicas, unless bounds
// say otherwise.
func scalingUp(bounds, scaleUp string) string {
	if !strings.Contains(bounds, "maxReplicas") {
		bounds += "maxReplicas: 50, "
	}
	return bounds + "behavior: {scaleDown: {}, scaleUp: {" + scaleUp + "}}"
}

func TestTheDefaultsOfScalingUpAreNothingSaid(t *testing.T) {
	for _, tt := range []struct {
		rule, scaleUp string
		said          bool
	}{
		{"nothing", "", false},
		{"what the API server fills in", "stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [" + defaults + "]", false},
		{"a window", "stabilizationWindowSeconds: 1, selectPolicy: Max, policies: [" + defaults + "]", true},
		{"a choice", "stabilizationWindowSeconds: 0, selectPolicy: Min, policies: [" + defaults + "]", true},
		{"a tolerance", `tolerance: "0.1", selectPolicy: Max, policies: [` + defaults + "]", true},
		{"one of the policies", "policies: [{type: Pods, value: 4, periodSeconds: 15}]", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			hpa := parse(t, spec(scalingUp("", tt.scaleUp), fmt.Sprintf(tasksOf, "{}")))
			before := hpa.DeepCopy()
			got, err := target.Of(hpa)
			if err != nil || (got.ScaleUp != nil) != tt.said {
				t.Errorf("ScaleUp = %+v, %v; want it said: %v", got.ScaleUp, err, tt.said)
			}
			if diff := cmp.Diff(before, hpa); diff != "" {
				t.Errorf("Of has changed what it reads (-before +after):\n%s", diff)
			}
		})
	}
	if got, err := target.Of(parse(t, onTasks)); got.ScaleUp != nil || err != nil {
		t.Errorf("ScaleUp = %+v, %v; want none without a behavior", got.ScaleUp, err)
	}
}

func TestAnHPAThatCouldNotLeaveZeroIsKnown(t *testing.T) {
	const pods, percent = "{type: Pods, value: 2, periodSeconds: 60}", "{type: Percent, value: 900, periodSeconds: 60}"
	for _, tt := range []struct {
		rule, scaleUp string
		want          bool
	}{
		{"by default it can", "", false},
		{"with pods it can", "policies: [" + pods + "]", false},
		{"with percent alone it cannot", "policies: [" + percent + "]", true},
		{"with both it can", "policies: [" + percent + ", " + pods + "]", false},
		{"with the lowest of both it cannot", "selectPolicy: Min, policies: [" + pods + ", " + percent + "]", true},
		{"with the lowest of the defaults it cannot", "selectPolicy: Min, policies: [" + defaults + "]", true},
		{"disabled it cannot", "selectPolicy: Disabled", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, spec(scalingUp("", tt.scaleUp), fmt.Sprintf(tasksOf, "{}"))))
			if err != nil || got.StaysAtZero() != tt.want {
				t.Errorf("StaysAtZero() = %v, %v; want %v", got.StaysAtZero(), err, tt.want)
			}
		})
	}
}
