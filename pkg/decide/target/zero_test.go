package target_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	wantsZero = `metadata: {annotations: {celery-hpa.io/scale-to-zero: "true"}}`
	ofWorkers = "{apiVersion: apps/v1, kind: Deployment, name: w}"
	tasksOf   = `{type: External, external: {metric: {name: celery_queue_tasks, selector: %s}, target: {type: AverageValue, averageValue: "1"}}}`
	valueOf   = `{type: External, external: {metric: {name: %s}, target: {type: AverageValue, averageValue: "%s"}}}`
)

// spec is that of an HPA on a Deployment.
func spec(rest string, metrics ...string) string {
	return fmt.Sprintf("\nspec: {scaleTargetRef: %s, %s, metrics: [%s]}", ofWorkers, rest, strings.Join(metrics, ", "))
}

func TestZeroIsWhatTheAnnotationsSay(t *testing.T) {
	for _, tt := range []struct {
		rule, annotations string
		want              target.Zero
	}{
		{"it is not asked for by default", `{}`, target.Zero{}},
		{"it is declined, whatever else is set", `{celery-hpa.io/scale-to-zero: "false", celery-hpa.io/idle-window: 1m, celery-hpa.io/paused: "true"}`, target.Zero{}},
		{"the window has a default", `{celery-hpa.io/scale-to-zero: "true"}`, target.Zero{Wanted: true, Window: v1alpha1.DefaultIdleWindow}},
		{"the default is five minutes", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/idle-window: 5m}`, target.Zero{Wanted: true, Window: v1alpha1.DefaultIdleWindow}},
		{"the window is a duration of Go", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/idle-window: 1h30m0.5s}`, target.Zero{Wanted: true, Window: 90*time.Minute + time.Second/2}},
		{"the shortest window", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/idle-window: 1s}`, target.Zero{Wanted: true, Window: time.Second}},
		{"the longest window", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/idle-window: 168h}`, target.Zero{Wanted: true, Window: 7 * 24 * time.Hour}},
		{"it is paused", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/paused: "true"}`, target.Zero{Wanted: true, Window: v1alpha1.DefaultIdleWindow, Paused: true}},
		{"it is not paused", `{celery-hpa.io/scale-to-zero: "true", celery-hpa.io/paused: "false"}`, target.Zero{Wanted: true, Window: v1alpha1.DefaultIdleWindow}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, "metadata: {annotations: "+tt.annotations+"}"+onTasks))
			if diff := cmp.Diff(tt.want, got.Zero); diff != "" || err != nil {
				t.Errorf("Of() = %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestMistakesInAnnotationsOfZero(t *testing.T) {
	const asked = `celery-hpa.io/scale-to-zero: "true", `
	for _, tt := range []struct{ rule, annotations, want string }{
		{"a window without a unit", asked + `celery-hpa.io/idle-window: "5"`, `annotation celery-hpa.io/idle-window is "5": it needs a unit, such as 5m`},
		{"a window of zero without a unit", asked + `celery-hpa.io/idle-window: "0"`, `it needs a unit, such as 5m`},
		{"a number too large to be one", asked + `celery-hpa.io/idle-window: "1e999"`, `it needs a unit, such as 5m`},
		{"a window below zero", asked + `celery-hpa.io/idle-window: "-1s"`, `annotation celery-hpa.io/idle-window is "-1s": it must be at least 1s`},
		{"a window too short", asked + `celery-hpa.io/idle-window: "999ms"`, `it must be at least 1s`},
		{"a window too long", asked + `celery-hpa.io/idle-window: "168h1ns"`, `it must be at most 168h; to keep a target from going to zero, set celery-hpa.io/paused`},
		{"a window in powers of ten", asked + `celery-hpa.io/idle-window: "1e9h"`, `annotation celery-hpa.io/idle-window is "1e9h": it must be a duration in hours, minutes and seconds, such as "30s", "5m" or "1h30m"`},
		{"a window beyond all time", asked + `celery-hpa.io/idle-window: "9999999999h"`, `it must be a duration in hours, minutes and seconds`},
		{"a window in days", asked + `celery-hpa.io/idle-window: "1d"`, `it must be a duration in hours, minutes and seconds`},
		{"a window without end", asked + `celery-hpa.io/idle-window: "inf"`, `it must be a duration in hours, minutes and seconds`},
		{"a window with space", asked + `celery-hpa.io/idle-window: " 5m"`, `it must be a duration in hours, minutes and seconds`},
		{"no window", asked + `celery-hpa.io/idle-window: ""`, `annotation celery-hpa.io/idle-window is "": it must be a duration`},
		{"another pause", asked + `celery-hpa.io/paused: "yes"`, `annotation celery-hpa.io/paused is "yes": it must be "true" or "false"`},
		{"another annotation that is wrong", asked + `celery-hpa.io/protect-nodes: "1"`, `annotation celery-hpa.io/protect-nodes is "1"`},
		{"an annotation that is misspelt", asked + `celery-hpa.io/idle-windows: "5m"`, `there is no annotation celery-hpa.io/idle-windows; there are: celery-hpa.io/protect-nodes, celery-hpa.io/scale-to-zero, celery-hpa.io/idle-window, celery-hpa.io/paused`},
		{"a wish that is not clear is one", `celery-hpa.io/scale-to-zero: "True"`, `annotation celery-hpa.io/scale-to-zero is "True": it must be "true" or "false"`},
		{"a wish without a word is one", `celery-hpa.io/scale-to-zero: ""`, `annotation celery-hpa.io/scale-to-zero is "": it must be "true" or "false"`},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, "metadata: {annotations: {"+tt.annotations+"}}"+onTasks))
			if text := fmt.Sprint(err); !strings.HasPrefix(text, "HorizontalPodAutoscaler airflow/worker: ") || !strings.Contains(text, tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if mistake := got.Zero.Mistake; mistake == nil || !strings.Contains(mistake.Error(), tt.want) {
				t.Errorf("mistake %v, want %q", mistake, tt.want)
			}
			if got.Zero.Mistake = nil; got.Zero != (target.Zero{Wanted: true, Window: v1alpha1.DefaultIdleWindow}) {
				t.Errorf("what is wrong does not count as not set: %+v", got.Zero)
			}
		})
	}
}

func TestMistakesOfWhomNobodyAskedForZero(t *testing.T) {
	for _, tt := range []struct{ rule, annotations, want string }{
		{"a window that is wrong is said", `celery-hpa.io/scale-to-zero: "false", celery-hpa.io/idle-window: "5"`, "it needs a unit"},
		{"a window for nothing is said", `celery-hpa.io/idle-window: 5m`, `annotation celery-hpa.io/idle-window has no effect without celery-hpa.io/scale-to-zero: "true"`},
		{"a pause of nothing is said", `celery-hpa.io/paused: "true"`, `annotation celery-hpa.io/paused has no effect without`},
		{"a misspelt wish is said", `celery-hpa.io/scale-to-null: "true"`, "there is no annotation celery-hpa.io/scale-to-null"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, "metadata: {annotations: {"+tt.annotations+"}}"+onTasks))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if got.Zero != (target.Zero{}) {
				t.Errorf("%+v, want nothing asked for", got.Zero)
			}
		})
	}
}

func TestWhatKeepsATargetFromGoingToZero(t *testing.T) {
	tasks, everything := fmt.Sprintf(tasksOf, "{}"), "maxReplicas: 3"
	for _, tt := range []struct {
		rule, spec string
		want       []string // in this order; none if all is well
	}{
		{"all is well", spec(everything, tasks), nil},
		{"any metric of queues tells when to come back", spec(everything, fmt.Sprintf(valueOf, "Celery_Queue_Backlog", "1")), nil},
		{"metrics of others are no mistake", spec(everything, "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}", tasks), nil},
		{"metrics of fleets beside one of queues are none", spec(everything, tasks, fmt.Sprintf(valueOf, "celery_busy_workers", "1")), nil},
		{"the HPA may go to zero itself", spec("minReplicas: 0, maxReplicas: 1", tasks), nil},
		{"a scale-up in percent alone is no mistake", spec("maxReplicas: 3, behavior: {scaleUp: {policies: [{type: Percent, value: 100, periodSeconds: 15}]}}", tasks), nil},
		{
			"metrics of fleets alone tell of no queue", spec(everything, fmt.Sprintf(valueOf, "celery_busy_workers", "1")),
			[]string{"the HPA scales on no metric of a queue, so nothing would tell when to come back from zero: add celery_queue_tasks with a selector of the target's queues"},
		},
		{"metrics of others alone tell of no queue", onOthers, []string{"the HPA scales on no metric of a queue"}},
		{"no metrics tell of no queue", spec(everything), []string{"the HPA scales on no metric of a queue"}},
		{"the bounds leave room", spec("minReplicas: 4, maxReplicas: 3", tasks), []string{"spec.maxReplicas is 3, below the 4 that there must be when there is work"}},
		{"the bounds leave room for one", spec("minReplicas: 0, maxReplicas: 0", tasks), []string{"spec.maxReplicas is 0, below the 1 that"}},
		{"a target value is above zero", spec(everything, tasks, fmt.Sprintf(valueOf, "Celery_Queue_Wait_Seconds", "0")), []string{"metric celery_queue_wait_seconds has no target above zero: set averageValue"}},
		{"a target value is not below zero", spec(everything, fmt.Sprintf(valueOf, "celery_queue_tasks", "-1")), []string{"metric celery_queue_tasks has no target above zero"}},
		{"a target has a value", spec(everything, `{type: External, external: {metric: {name: celery_queue_tasks}, target: {type: Utilization, averageUtilization: 80}}}`), []string{"metric celery_queue_tasks has no target above zero"}},
		{"a label is one", spec(everything, fmt.Sprintf(tasksOf, `{matchLabels: {queue: "two words"}}`)), []string{`metric celery_queue_tasks: its selector cannot be read: values[0][queue]: Invalid value: "two words"`}},
		{"an operator is one", spec(everything, fmt.Sprintf(tasksOf, `{matchExpressions: [{key: queue, operator: Like, values: [a]}]}`)), []string{`its selector cannot be read: "Like" is not a valid label selector operator`}},
		{"scaling up is not disabled", spec("maxReplicas: 3, behavior: {scaleUp: {selectPolicy: Disabled}}", tasks), []string{"spec.behavior.scaleUp.selectPolicy is Disabled, so the target could not come back from zero"}},
		{"something is scaled", "\nspec: {scaleTargetRef: {kind: Deployment}, maxReplicas: 1, metrics: [" + tasks + "]}", []string{"spec.scaleTargetRef lacks a kind or a name"}},
		{"that has a kind", "\nspec: {scaleTargetRef: {name: w}, maxReplicas: 1, metrics: [" + tasks + "]}", []string{"spec.scaleTargetRef lacks a kind or a name"}},
		{
			"all mistakes are said, always in one order", spec("minReplicas: 4, maxReplicas: 3, behavior: {scaleUp: {selectPolicy: Disabled}}", fmt.Sprintf(valueOf, "celery_busy_workers", "0")),
			[]string{"no metric of a queue", "spec.maxReplicas is 3", "is Disabled", "no target above zero"},
		},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, wantsZero+tt.spec))
			if err != nil || !got.Zero.Wanted {
				t.Fatalf("%+v, %v: want it asked for, and no mistake in annotations", got.Zero, err)
			}
			rest := fmt.Sprint(got.Zero.Mistake)
			if got.Zero.Mistake == nil {
				rest = ""
			}
			if lines := strings.Count(rest, "\n") + 1; (rest == "") != (tt.want == nil) || tt.want != nil && lines != len(tt.want) {
				t.Fatalf("mistake %v, want %q", got.Zero.Mistake, tt.want)
			}
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("mistake %v, want %q", got.Zero.Mistake, tt.want)
				}
				rest = after
			}
			unasked, err := target.Of(parse(t, tt.spec))
			if err != nil || unasked.Zero != (target.Zero{}) {
				t.Errorf("%+v, %v: want no mistake of who does not ask", unasked.Zero, err)
			}
		})
	}
}

func TestSelectorsChoose(t *testing.T) {
	for _, tt := range []struct{ rule, selector, want string }{
		{"none chooses everything", "null", ""},
		{"an empty one chooses everything", "{}", ""},
		{"labels and expressions are all heeded", "{matchLabels: {queue: a, broker: prod}, matchExpressions: [{key: queue, operator: NotIn, values: [b, c]}, {key: x, operator: Exists}]}", "broker=prod,queue notin (b,c),queue=a,x"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, spec("maxReplicas: 3", fmt.Sprintf(tasksOf, tt.selector))))
			if err != nil || len(got.Signals) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			if selector := got.Signals[0].Selector; selector.String() != tt.want || selector.Empty() != (tt.want == "") {
				t.Errorf("selector %q, want %q", selector, tt.want)
			}
		})
	}
	broken, err := target.Of(parse(t, spec("maxReplicas: 3", fmt.Sprintf(tasksOf, `{matchLabels: {queue: "two words"}}`))))
	if err != nil || len(broken.Signals) != 1 || broken.Signals[0].Selector.String() != "" || broken.Signals[0].Selector.Empty() {
		t.Errorf("%+v, %v: want a selector that cannot be read to choose nothing", broken.Signals, err)
	}
}

// An HPA that has not changed is read anew at each resync and change of its status.
// What looks different then is told to everybody.
func TestAnHPAIsEqualToItself(t *testing.T) {
	for rule, text := range map[string]string{
		"without mistakes": wantsZero + spec(`maxReplicas: 3, behavior: {scaleUp: {tolerance: "0.05", policies: [{type: Pods, value: 2, periodSeconds: 15}]}}`,
			fmt.Sprintf(tasksOf, "{matchLabels: {queue: a, broker: b, x: y}, matchExpressions: [{key: queue, operator: In, values: [a, b]}]}")),
		"with mistakes of every kind": `metadata: {annotations: {celery-hpa.io/scale-to-zero: "1", celery-hpa.io/idle-window: "5", celery-hpa.io/paused: "", celery-hpa.io/x: "", celery-hpa.io/y: ""}}` +
			spec("minReplicas: 4, maxReplicas: 3, behavior: {scaleUp: {selectPolicy: Disabled}}",
				fmt.Sprintf(valueOf, "celery_busy_workers", "0"), fmt.Sprintf(tasksOf, `{matchLabels: {queue: "two words", broker: "a b", x: "c d", "e f": g}}`)),
	} {
		first, _ := target.Of(parse(t, text))
		for range 50 { // maps are read in a random order
			if again, _ := target.Of(parse(t, text)); !again.Equal(first) {
				t.Fatalf("%s: %+v\nis not equal to\n%+v", rule, again, first)
			}
		}
	}
}

func TestWhatDiffersIsNotEqual(t *testing.T) {
	tasks := func(selector string) string { return fmt.Sprintf(tasksOf, selector) }
	texts := []string{
		spec("maxReplicas: 3", tasks("{}")),
		wantsZero + spec("maxReplicas: 3", tasks("{}")),
		"metadata: {uid: other}" + spec("maxReplicas: 3", tasks("{}")),
		spec("maxReplicas: 3", tasks("{matchLabels: {queue: a}}")),
		spec("maxReplicas: 3", tasks("{matchLabels: {queue: b}}")),
		spec("maxReplicas: 3", tasks("{}"), tasks("{}")),
		spec("maxReplicas: 3", tasks("{}"), "{type: Resource, resource: {name: cpu}}"),
		spec("maxReplicas: 3", fmt.Sprintf(valueOf, "celery_queue_tasks", "2")),
		spec("maxReplicas: 3, behavior: {scaleUp: {policies: [{type: Pods, value: 2, periodSeconds: 15}]}}", tasks("{}")),
		wantsZero + spec("minReplicas: 5, maxReplicas: 3", tasks("{}")),
		wantsZero + spec("minReplicas: 5, maxReplicas: 3, behavior: {scaleUp: {selectPolicy: Disabled}}", tasks("{}")),
	}
	for i, a := range texts {
		for j, b := range texts {
			one, _ := target.Of(parse(t, a))
			other, _ := target.Of(parse(t, b))
			if one.Equal(other) != (i == j) {
				t.Errorf("Equal = %v of\n%s\nand%s", i != j, a, b)
			}
		}
	}
}
