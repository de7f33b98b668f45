package target_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// parse reads an HPA called worker of the namespace airflow.
func parse(t *testing.T, text string) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	var hpa autoscalingv2.HorizontalPodAutoscaler
	if err := yaml.UnmarshalStrict([]byte(text), &hpa); err != nil {
		t.Fatal(err)
	}
	hpa.Namespace, hpa.Name = "airflow", "worker"
	return &hpa
}

const (
	onTasks = `
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: celery-worker}
  minReplicas: 2
  maxReplicas: 9
  metrics:
  - {type: External, external: {metric: {name: celery_queue_tasks}, target: {type: AverageValue, averageValue: "1"}}}
`
	onOthers = `
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}
  - {type: External, external: {metric: {name: sqs_length}, target: {type: Value, value: "1"}}}
  - {type: Pods, pods: {metric: {name: celery_queue_tasks}, target: {type: AverageValue, averageValue: "1"}}}
  - {type: ContainerResource, containerResource: {name: memory, container: c, target: {type: AverageValue, averageValue: "1"}}}
  - {type: Object, object: {metric: {name: hits}, describedObject: {kind: Ingress, name: web}, target: {type: Value, value: "1"}}}
  - {type: External}
  - {type: Future, external: {metric: {name: celery_queue_tasks}, target: {type: AverageValue, averageValue: "1"}}}
`
)

func TestOf(t *testing.T) {
	everything := labels.Everything()
	for _, tt := range []struct {
		rule, hpa string
		want      target.Target
	}{
		{"what scales on a metric of ours is read", onTasks, target.Target{
			Namespace: "airflow", HPA: "worker", APIVersion: "apps/v1", Kind: "StatefulSet", Name: "celery-worker",
			Metrics: []string{"celery_queue_tasks"}, MinReplicas: 2, MaxReplicas: 9,
			Signals: []target.Signal{{Metric: "celery_queue_tasks", Selector: everything, PerReplica: true, Milli: 1000}},
		}},
		{"a metric of ours is external; the minimum is 1 by default; the identity is told", "metadata: {uid: u-1}" + onOthers, target.Target{
			Namespace: "airflow", HPA: "worker", UID: "u-1", APIVersion: "apps/v1", Kind: "Deployment", Name: "web",
			MinReplicas: 1, MaxReplicas: 3,
			Foreign: []string{"Resource cpu", "External sqs_length", "Pods celery_queue_tasks", "ContainerResource memory", "Object hits", "External", "Future celery_queue_tasks"},
		}},
		{"a metric counts once, in whatever case; zero replicas are a minimum; signals keep their order", `
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: w}
  minReplicas: 0
  maxReplicas: 3
  metrics:
  - {type: External, external: {metric: {name: Celery_Queue_Tasks, selector: {matchLabels: {queue: a}}}, target: {type: AverageValue, averageValue: "16"}}}
  - {type: External, external: {metric: {name: celery_queue_tasks, selector: {}}, target: {type: Value, value: "1500m"}}}
  - {type: External, external: {metric: {name: Celery_Busy_Workers}, target: {type: Value, averageValue: "1"}}}
`, target.Target{
			Namespace: "airflow", HPA: "worker", APIVersion: "apps/v1", Kind: "Deployment", Name: "w",
			Metrics: []string{"celery_busy_workers", "celery_queue_tasks"}, MaxReplicas: 3,
			Signals: []target.Signal{
				{Metric: "celery_queue_tasks", Selector: labels.SelectorFromSet(labels.Set{"queue": "a"}), PerReplica: true, Milli: 16000},
				{Metric: "celery_queue_tasks", Selector: everything, Milli: 1500},
				{Metric: "celery_busy_workers", Selector: everything, PerReplica: true, Milli: 1000},
			},
		}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, tt.hpa))
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("Of() = %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestEveryMetricThatWeServeMakesAnHPAOurs(t *testing.T) {
	names := target.Metrics()
	var served []string
	for _, m := range queue.Metrics() {
		served = append(served, m.Name)
	}
	for _, m := range fleet.Metrics() {
		served = append(served, m.Name)
	}
	for _, name := range served {
		if !slices.Contains(names, name) {
			t.Errorf("target.Metrics() lacks %s", name)
		}
	}
	if len(names) != len(served) {
		t.Errorf("target.Metrics() = %q, want %q", names, served)
	}
}

func TestAnnotations(t *testing.T) {
	for _, tt := range []struct {
		rule, annotations, metrics string
		protects                   bool
		want                       string // of the error
	}{
		{"protection is asked for", `{celery-hpa.io/protect-nodes: "true"}`, onTasks, true, ""},
		{"protection is declined", `{celery-hpa.io/protect-nodes: "false"}`, onTasks, false, ""},
		{"others' annotations mean nothing", `{example.org/protect-nodes: "true"}`, onTasks, false, ""},
		{"another value is a mistake", `{celery-hpa.io/protect-nodes: "yes"}`, onTasks, false, `HorizontalPodAutoscaler airflow/worker: annotation celery-hpa.io/protect-nodes is "yes": it must be "true" or "false"`},
		{"no value is a mistake", `{celery-hpa.io/protect-nodes: ""}`, onTasks, false, `it must be "true" or "false"`},
		{"a misspelt annotation is a mistake", `{celery-hpa.io/protect-node: "true"}`, onTasks, false, "there is no annotation celery-hpa.io/protect-node; there are: celery-hpa.io/protect-nodes"},
		{"a mistake spoils no other annotation", `{celery-hpa.io/protect-nodes: "true", celery-hpa.io/x: ""}`, onTasks, true, "there is no annotation celery-hpa.io/x"},
		{"without a metric of ours protection has no effect", `{celery-hpa.io/protect-nodes: "true"}`, onOthers, true, "has no effect: the HPA scales on no metric of celery-hpa"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := target.Of(parse(t, "metadata: {annotations: "+tt.annotations+"}"+tt.metrics))
			if got.ProtectNodes != tt.protects {
				t.Errorf("ProtectNodes = %v, want %v", got.ProtectNodes, tt.protects)
			}
			if got.Name == "" {
				t.Error("a mistake in an annotation left the target unknown")
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		apiVersion, kind        string
		deployment, statefulSet bool
	}{
		{"apps/v1", "Deployment", true, false},
		{"apps/v1", "StatefulSet", false, true},
		{"argoproj.io/v1alpha1", "Rollout", false, false},
		{"example.org/v1", "Deployment", false, false},
	} {
		got := target.Target{APIVersion: tt.apiVersion, Kind: tt.kind}
		if got.IsDeployment() != tt.deployment || got.IsStatefulSet() != tt.statefulSet {
			t.Errorf("%s %s: Deployment %v, StatefulSet %v; want %v, %v",
				tt.apiVersion, tt.kind, got.IsDeployment(), got.IsStatefulSet(), tt.deployment, tt.statefulSet)
		}
	}
}
