package e2e_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

var (
	rounds = flag.Int("rounds", 1, "how many `scale-downs` to try with each kind of workers")
	every  = flag.Bool("every", false, "try every kind of workers")
)

const (
	many = 12 // workers
	long = 4  // tasks that execute while workers are taken away
)

// longTask is longer than any test.
const longTask = time.Hour

// startFleet runs a playground with workers of one slot each, if nothing else is
// said.
func startFleet(t *testing.T, broker playground.Broker, workers playground.Fleet) *playground.Playground {
	t.Helper()
	workers.Concurrency = max(workers.Concurrency, 1)
	p, err := playground.Start(t.Context(), playground.Options{
		Output: os.Stdout, Broker: broker, Workers: workers, MaxReplicas: many, HPASyncPeriod: hpaSync, DownscaleStabilization: hpaSync,
	})
	t.Cleanup(func() {
		// Else they would be waited for.
		if err := errors.Join(p.ReleaseTasks(), p.Stop()); err != nil {
			t.Errorf("stop the playground: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestScaleDownTakesIdleWorkers(t *testing.T) {
	kinds := []struct {
		broker  playground.Broker
		workers playground.Fleet
		always  bool
	}{
		{playground.Redis, playground.Fleet{AcksEarly: true}, true},
		{playground.RabbitMQ, playground.Fleet{}, true},
		{playground.Redis, playground.Fleet{}, false},
		{playground.RabbitMQ, playground.Fleet{AcksEarly: true}, false},
		{playground.Redis, playground.Fleet{Pool: "threads", AcksEarly: true}, false},
		{playground.RabbitMQ, playground.Fleet{Pool: "threads"}, false},
		{playground.Redis, playground.Fleet{Pool: "solo", AcksEarly: true}, false},
		{playground.RabbitMQ, playground.Fleet{Pool: "solo"}, false},
		{playground.Redis, playground.Fleet{Pool: "gevent", AcksEarly: true}, false},
		{playground.RabbitMQ, playground.Fleet{Pool: "gevent"}, false},
	}
	for _, kind := range kinds {
		if !kind.always && !*every {
			continue
		}
		t.Run(fmt.Sprintf("%s, pool %q, early ack %t", kind.broker.Title(), kind.workers.Pool, kind.workers.AcksEarly), func(t *testing.T) {
			p := startFleet(t, kind.broker, kind.workers)
			for round := range *rounds {
				busy := occupy(t, p)
				lower(t, p)
				if diff := cmp.Diff(busy, pods(t, p)); diff != "" {
					t.Errorf("round %d: busy pods (-) and those that are left (+):\n%s", round, diff)
				}
				release(t, p)
			}
		})
	}
}

// TestScaleDownHoldsAtBusyWorkersWithoutWebhook takes away what knows which workers
// are busy: how many is known all the same.
func TestScaleDownHoldsAtBusyWorkersWithoutWebhook(t *testing.T) {
	p := startFleet(t, playground.Redis, playground.Fleet{AcksEarly: true})
	if _, err := p.Cluster.Kubectl(t.Context(), "delete", "validatingwebhookconfigurations", "celery-hpa"); err != nil {
		t.Fatal(err)
	}
	occupy(t, p)
	lower(t, p)
	for end := time.Now().Add(10 * hpaSync); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		s, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Wanted < long {
			t.Fatalf("the HPA went to %d replicas with %d tasks that execute", s.Wanted, long)
		}
	}
	release(t, p)
}

// TestTasksThatBeginAreNotMissed sends tasks to one worker, so that others are started,
// take some and begin them: the broker forgets these some seconds before their workers tell
// of them. An HPA that looks each second sees all of them all the time.
func TestTasksThatBeginAreNotMissed(t *testing.T) {
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		t.Run(broker.Title(), func(t *testing.T) {
			p := startFleet(t, broker, playground.Fleet{AcksEarly: true})
			if err := p.Publish(t.Context(), many, longTask); err != nil {
				t.Fatal(err)
			}
			await(t, p, "all tasks to be counted", func(s playground.Status) bool { return s.Tasks >= many })
			until, end := time.Now().Add(5*time.Second), time.Now().Add(patience)
			for started := 0; time.Now().Before(until) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				s, err := p.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if s.Tasks < many {
					t.Fatalf("%d tasks of %d are counted, of which %d execute, and %d workers are ready", s.Tasks, many, s.Started, s.Ready)
				}
				if s.Started > started || s.Ready < many {
					started, until = s.Started, time.Now().Add(5*time.Second) // the latest is to be told of
				}
			}
			await(t, p, "a worker for each task", func(s playground.Status) bool { return s.Wanted == many && s.Ready == many })
			release(t, p)
		})
	}
}

// TestReplicaIsReadyWhenItKnowsWhatExecutes starts celery-hpa anew while tasks execute that
// the broker has forgotten, and asks it itself: the API server may not have found it again.
func TestReplicaIsReadyWhenItKnowsWhatExecutes(t *testing.T) {
	p := startFleet(t, playground.Redis, playground.Fleet{AcksEarly: true})
	occupy(t, p)
	config, err := p.Cluster.ConfigFor("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
	if err != nil {
		t.Fatal(err)
	}
	config.Host = p.Address()
	for pod, pid := range programs(p) {
		signal(t, pid, syscall.SIGKILL)
		eventually.Holds(t, patience, "another process of "+pod, func() bool { now := programs(p)[pod]; return now != 0 && now != pid })
	}
	eventually.Holds(t, patience, "it to be ready", func() bool {
		_, err := get(t, config, "/readyz")
		return err == nil
	})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text, err := get(t, config, api+"/namespaces/"+playground.Namespace+"/celery_queue_tasks")
		if tasks := items(t, text); err != nil || !strings.HasSuffix(tasks, fmt.Sprintf("/%s=%d", playground.Queue, long)) {
			t.Fatalf("a replica that is ready tells of %q, want %d tasks: %v", tasks, long, err)
		}
	}
	release(t, p)
}

// TestBusyWorkersHoldTheirNodes has one of two workers execute a task, and then none.
func TestBusyWorkersHoldTheirNodes(t *testing.T) {
	p := startFleet(t, playground.Redis, playground.Fleet{MinReplicas: 2})
	awaitMetric(t, p, "celery_busy_workers", 0)
	if err := p.Publish(t.Context(), 1, longTask); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the task to start", func(s playground.Status) bool { return s.Started == 1 })
	executions, err := p.Executions()
	if err != nil {
		t.Fatal(err)
	}
	awaitHeld(t, p, executions[0].Pod)
	release(t, p)
	awaitHeld(t, p)
}

// awaitHeld blocks until exactly these pods hold their nodes.
func awaitHeld(t *testing.T, p *playground.Playground, want ...string) {
	t.Helper()
	await(t, p, fmt.Sprintf("%v to hold their nodes", want), func(playground.Status) bool {
		held, err := p.HeldPods(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(held, want)
	})
}

func TestStatefulSetHoldsItsHighestBusyOrdinal(t *testing.T) {
	p := startFleet(t, playground.Redis, playground.Fleet{StatefulSet: true})
	raise(t, p)
	// One task after the other, until worker-7 has one and none above it; with as
	// many workers as tasks each has one in the end.
	if err := p.Publish(t.Context(), many, longTask); err != nil {
		t.Fatal(err)
	}
	await(t, p, "a task for each worker", func(s playground.Status) bool { return s.Started-s.Finished == many })
	if err := p.ReleaseTasksAbove(7); err != nil {
		t.Fatal(err)
	}
	awaitMetric(t, p, "celery_busy_workers", 8)
	if err := p.SetMinReplicas(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "eight workers", func(s playground.Status) bool { return s.Wanted == 8 && s.Ready == 8 })
	for end := time.Now().Add(10 * hpaSync); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s, err := p.Status(t.Context()); err != nil || s.Wanted != 8 {
			t.Fatalf("with worker-7 busy there are to be %d replicas, want 8: %v", s.Wanted, err)
		}
	}
}

// raise has the HPA start all workers and returns when each is known to be idle.
func raise(t *testing.T, p *playground.Playground) {
	t.Helper()
	if err := p.SetMinReplicas(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	await(t, p, "all workers", func(s playground.Status) bool { return s.Ready == many })
	awaitMetric(t, p, "celery_busy_workers", 0)
}

// occupy raises the number of workers and returns the pods of those that have one of
// the long tasks each, sorted.
func occupy(t *testing.T, p *playground.Playground) []string {
	t.Helper()
	raise(t, p)
	if err := p.Publish(t.Context(), long, longTask); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the tasks to start", func(s playground.Status) bool { return s.Started-s.Finished == long })
	awaitMetric(t, p, "celery_busy_workers", long)
	executions, err := p.Executions()
	if err != nil {
		t.Fatal(err)
	}
	var busy []string
	for _, e := range executions {
		if !e.Finished {
			busy = append(busy, e.Pod)
		}
	}
	slices.Sort(busy)
	return busy
}

// lower lets the HPA take workers away, and returns when it has.
func lower(t *testing.T, p *playground.Playground) {
	t.Helper()
	if err := p.SetMinReplicas(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the scale-down", func(s playground.Status) bool { return s.Wanted == long })
	await(t, p, "the end of the others", func(playground.Status) bool { return len(pods(t, p)) == long })
}

// release ends the tasks, and checks that each ran once and none was killed.
func release(t *testing.T, p *playground.Playground) {
	t.Helper()
	if err := p.ReleaseTasks(); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the tasks to finish", func(s playground.Status) bool { return s.Finished == s.Started })
	if err := p.HoldTasks(); err != nil {
		t.Fatal(err)
	}
	checkOnce(t, p)
}

// checkOnce fails if a task ran twice or not to its end, or a worker was killed.
func checkOnce(t *testing.T, p *playground.Playground) {
	t.Helper()
	executions, err := p.Executions()
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]int{}
	for _, e := range executions {
		if runs[e.ID]++; runs[e.ID] > 1 || !e.Finished {
			t.Errorf("task %s, in pod %s: run number %d, finished %t", e.ID, e.Pod, runs[e.ID], e.Finished)
		}
	}
	if s, err := p.Status(t.Context()); err != nil || s.Killed != 0 {
		t.Errorf("%d workers were killed; %v", s.Killed, err)
	}
}

func pods(t *testing.T, p *playground.Playground) []string {
	t.Helper()
	names, err := p.WorkerPods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// awaitMetric blocks until a metric of the fleet has a value.
func awaitMetric(t *testing.T, p *playground.Playground, name string, want int64) {
	t.Helper()
	var got int64
	var err error
	await(t, p, fmt.Sprintf("%s %d", name, want), func(playground.Status) bool {
		got, err = p.FleetMetric(t.Context(), name)
		return err == nil && got == want
	})
}

// podsOf counts the pods of workers that have begun and those that have ended.
func podsOf(p *playground.Playground) (began, ended int) {
	for _, e := range p.Node.Events() {
		switch {
		case !strings.HasPrefix(e.Pod, playground.Workers+"-"):
		case e.Kind == procnode.Start:
			began++
		case e.Kind == procnode.Exit:
			ended++
		}
	}
	return began, ended
}
