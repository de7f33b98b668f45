package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const hpaUser = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"

// TestPeopleMayScaleToZero has somebody do so while a task executes, with celery-hpa
// and without; and the HPA's user, who may not.
func TestPeopleMayScaleToZero(t *testing.T) {
	p := startSleeper(t, playground.Options{Broker: playground.Redis, Workers: playground.Fleet{AcksEarly: true}})
	t.Run("with a warning", func(t *testing.T) {
		startTask(t, p)
		if said := scale(t, p, 0); !strings.Contains(said, "Warning:") || !strings.Contains(said, "scaled") {
			t.Errorf("kubectl says %q, want a warning, and that it has scaled", said)
		}
		holds(t, p, 0, "with a task in a pod that ends")
		endTask(t, p)
		awaitAsleep(t, p)
	})
	t.Run("without celery-hpa", func(t *testing.T) {
		startTask(t, p)
		runCeleryHPA(t, p, 0)
		err := zeroAs(t, p, hpaUser)
		if !apierrors.IsInternalError(err) && !apierrors.IsForbidden(err) {
			t.Errorf("the HPA's user goes to zero without anybody who can tell: %v", err)
		}
		if said := scale(t, p, 0); strings.Contains(said, "Warning:") {
			t.Errorf("kubectl says %q", said)
		}
		scale(t, p, 1)
		runCeleryHPA(t, p, 1)
		endTask(t, p)
		awaitAsleep(t, p)
	})
	checkTasks(t, p, 2)
}

// startTask has a worker execute a task that goes on until endTask.
func startTask(t *testing.T, p *playground.Playground) {
	t.Helper()
	before := len(executions(t, p))
	if err := p.Publish(t.Context(), 1, longTask); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the task to start", func(s playground.Status) bool { return s.Started == before+1 })
	awaitMetric(t, p, "celery_worker_active_tasks", 1)
}

func endTask(t *testing.T, p *playground.Playground) {
	t.Helper()
	release(t, p)
}

// runCeleryHPA runs that many processes of it, and returns when it does.
func runCeleryHPA(t *testing.T, p *playground.Playground, replicas int) {
	t.Helper()
	kubectl(t, p, "--namespace="+playground.SystemNamespace, "scale", "deployment", "celery-hpa", fmt.Sprintf("--replicas=%d", replicas))
	eventually.Holds(t, patience, fmt.Sprintf("%d processes of celery-hpa", replicas), func() bool { return len(programs(p)) == replicas })
}

// zeroAs writes the scale as another user.
func zeroAs(t *testing.T, p *playground.Playground, user string) error {
	t.Helper()
	config, err := p.Cluster.ConfigFor(user, "system:serviceaccounts", "system:serviceaccounts:kube-system")
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	zero := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: playground.Workers, Namespace: playground.Namespace}}
	_, err = clients.AppsV1().Deployments(playground.Namespace).UpdateScale(t.Context(), playground.Workers, zero, metav1.UpdateOptions{})
	return err
}

// TestHPAGoesToZeroOnlyWhenNothingExecutes has an HPA scale on the backlog alone, which
// is zero while a task executes.
func TestHPAGoesToZeroOnlyWhenNothingExecutes(t *testing.T) {
	p := startSleeper(t, playground.Options{
		Broker: playground.Redis, Workers: playground.Fleet{HPASleeps: true, AcksEarly: true, QueueMetricAlone: true},
	})
	kubectl(t, p, "patch", "hpa", playground.Workers, "--type=json",
		`--patch=[{"op": "replace", "path": "/spec/metrics/0/external/metric/name", "value": "celery_queue_backlog"}]`)
	startTask(t, p)
	eventually.Holds(t, patience, "the HPA to be refused, since a task executes", func() bool {
		said := kubectl(t, p, "get", "events", "--field-selector=reason=FailedRescale")
		return strings.Contains(said, "not to zero") && strings.Contains(said, "executes")
	})
	holds(t, p, 1, "with a task that executes")
	endTask(t, p)
	awaitAsleep(t, p)
	checkTasks(t, p, 1)
}
