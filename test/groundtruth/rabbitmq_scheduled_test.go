package groundtruth_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// From a classic queue a worker takes tasks with an ETA at once, beyond its prefetch
// count, and holds them. RabbitMQ does not tell them from others: they count as work.
// A worker that ends puts them back.
func etaIsWork(t *testing.T, s setup) {
	f, workers := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 1})
	f.publish(t, servers.CeleryTask{N: 20, Countdown: time.Hour})
	f.workersSay(t, 0, 0, 20)
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 20}})

	f.publish(t, servers.CeleryTask{N: 10, Countdown: time.Second, Gate: "gate"})
	f.workersSay(t, 2, 8, 20)
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 30}})
	f.OpenGate(t, "gate")
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 20}})

	f.mayPutBack(20)
	workers[0].Signal(t, syscall.SIGTERM)
	f.watch(t, func() bool { return hasEnded(workers[0]) })
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 20}})
	if diff := cmp.Diff(progress{10, 10}, f.progress(t)); diff != "" {
		t.Errorf("the record differs (-want +got):\n%s", diff)
	}
}

// Tasks of a quorum queue wait for their ETA in the broker itself. They are no
// backlog before their time has come, and counted apart, in queues that are not
// found.
func etaIsDelayed(t *testing.T, s setup) {
	f, workers := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 1})
	f.publish(t, servers.CeleryTask{N: 20, Countdown: time.Hour})
	f.delayed = 20
	f.settlesAt(t, map[string]counts{"celery": {}})
	f.workersSay(t, 0, 0, 0)

	const soon = 3 * time.Second
	earliest := time.Now().Add(soon)
	f.publish(t, servers.CeleryTask{N: 10, Countdown: soon, Gate: "gate"})
	f.awaitUndelayed(t, earliest)
	f.workersSay(t, 2, 0, 0)
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 8, InFlight: 2}})

	workers[0].Signal(t, syscall.SIGTERM)
	f.OpenGate(t, "gate")
	f.awaitEnd(t, workers[0])
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 10 - f.progress(t).Finished}})
}

// awaitUndelayed samples until tasks have become due, before which none of them
// may be seen.
func (f *flow) awaitUndelayed(t *testing.T, due time.Time) {
	t.Helper()
	f.await(t, func() string {
		sample, err := f.driver.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		depth := sample.Queues["celery"]
		tasks := depth.Tasks()
		if tasks.Err != nil {
			return tasks.Err.Error()
		}
		if early := time.Until(due); early > 0 && tasks.N > 0 {
			t.Fatalf("%v before any is due: %+v, want none", early, depth)
		}
		if tasks.N == 0 {
			return "no task is due"
		}
		return ""
	})
}

// workersSay waits until the worker holds so many tasks.
func (i *installation) workersSay(t *testing.T, active, reserved, scheduled int) {
	t.Helper()
	i.await(t, func() string {
		says := i.Inspect(t, "celery@worker")
		return cmp.Diff([]int{active, reserved, scheduled}, []int{len(says.Active), len(says.Reserved), len(says.Scheduled)})
	})
}
