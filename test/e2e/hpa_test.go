package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// patience bounds every wait; none depends on its length.
const patience = 2 * time.Minute

const (
	hpaSync       = time.Second
	stabilization = 5 * time.Second
	maxReplicas   = 4
)

// start runs a playground for the length of a test.
func start(t *testing.T, broker playground.Broker) *playground.Playground {
	t.Helper()
	p, err := playground.Start(t.Context(), playground.Options{
		Output: os.Stdout, Broker: broker, Workers: playground.Fleet{QueueMetricAlone: true},
		MaxReplicas: maxReplicas, HPASyncPeriod: hpaSync, DownscaleStabilization: stabilization,
	})
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stop the playground: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func await(t *testing.T, p *playground.Playground, what string, reached func(playground.Status) bool) {
	t.Helper()
	if err := p.Await(t.Context(), patience, reached); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestMainRoad(t *testing.T) {
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		t.Run(broker.Title(), func(t *testing.T) {
			t.Parallel()
			p := start(t, broker)
			t.Run("the API answers through the aggregator", func(t *testing.T) { testAnswers(t, p) })
			t.Run("only who may read metrics reads them", func(t *testing.T) { testRights(t, p) })
			t.Run("the HPA follows the queue up and down and kills no task", func(t *testing.T) { testUpAndDown(t, p) })
			t.Run("a broker that hangs holds the replicas", func(t *testing.T) { testHold(t, p) })
		})
	}
}

func testUpAndDown(t *testing.T, p *playground.Playground) {
	const tasks = 20
	if err := p.Publish(t.Context(), tasks, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	await(t, p, "scale up to the maximum", func(s playground.Status) bool { return s.Wanted == maxReplicas })
	await(t, p, "scale down to one", func(s playground.Status) bool {
		return s.Finished >= tasks && s.Wanted == 1 && s.Ready == 1
	})
	checkTasks(t, p, tasks)
}

// checkTasks fails unless that many tasks ran, each once and to its end, and no
// worker was killed.
func checkTasks(t *testing.T, p *playground.Playground, tasks int) {
	t.Helper()
	s, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Started != tasks || s.Finished != tasks || s.Killed != 0 {
		t.Errorf("%d tasks started, %d finished, %d workers killed; want %d, %d, 0", s.Started, s.Finished, s.Killed, tasks, tasks)
	}
	for _, e := range p.Node.Events() {
		if e.Kind == procnode.SIGKILL {
			t.Errorf("pod %s was killed at %s", e.Pod, e.Time.Format(time.TimeOnly))
		}
	}
}

// testHold pauses the broker while there are more workers than work: the HPA must not
// take the missing answer for an empty queue. There are so many tasks that the
// last count before the pause, which is served while it is young, asks for every
// worker.
func testHold(t *testing.T, p *playground.Playground) {
	const tasks = 40
	before, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), tasks, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	await(t, p, "scale up", func(s playground.Status) bool { return s.Wanted == maxReplicas })
	pid := brokerPID(t, p)
	signal(t, pid, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // the server may be gone
	clients, err := kubernetes.NewForConfig(p.Cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	message := awaitBlindHPA(t, clients)
	for _, want := range []string{"demo/" + string(p.Broker()), "maximum age"} {
		if !strings.Contains(message, want) {
			t.Errorf("the HPA's condition is %q, want it to say %q", message, want)
		}
	}
	if replicas := replicasThroughout(t, clients, 3*stabilization); replicas != maxReplicas {
		t.Errorf("with the broker out of reach the Deployment went to %d replicas, want it held at %d", replicas, maxReplicas)
	}
	signal(t, pid, syscall.SIGCONT)
	await(t, p, "scale down once the broker is back", func(s playground.Status) bool {
		return s.Finished >= before.Finished+tasks && s.Wanted == 1 && s.Ready == 1
	})
	checkTasks(t, p, before.Finished+tasks)
}

// awaitBlindHPA blocks until the HPA says that it cannot read its metric and
// returns how it says so.
func awaitBlindHPA(t *testing.T, clients kubernetes.Interface) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hpas := clients.AutoscalingV2().HorizontalPodAutoscalers(playground.Namespace)
	watch, err := hpas.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		hpa, ok := event.Object.(*autoscalingv2.HorizontalPodAutoscaler)
		if !ok {
			continue
		}
		for _, c := range hpa.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive && c.Status == corev1.ConditionFalse {
				return fmt.Sprintf("%s: %s", c.Reason, c.Message)
			}
		}
	}
	t.Fatalf("the HPA still scales %s after its broker was paused", patience)
	return ""
}

// replicasThroughout watches the Deployment for that long and returns the
// replicas that it wants, or the first other number that it has wanted.
func replicasThroughout(t *testing.T, clients kubernetes.Interface, length time.Duration) int32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	watch, err := clients.AppsV1().Deployments(playground.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + playground.Workers})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	first := int32(-1)
	for event := range watch.ResultChan() {
		replicas := wanted(event.Object)
		if first == -1 {
			first = replicas
		}
		if replicas != first {
			return replicas
		}
	}
	return first
}

// brokerPID is the process of the broker's pod.
func brokerPID(t *testing.T, p *playground.Playground) int {
	t.Helper()
	for _, e := range p.Node.Events() {
		if e.Kind == procnode.Start && strings.HasPrefix(e.Pod, string(p.Broker())+"-") {
			return e.PID
		}
	}
	t.Fatal("no pod of the broker was ever started")
	return 0
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("send %s to process %d: %v", s, pid, err)
	}
}
