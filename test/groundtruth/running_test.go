package groundtruth_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// run is tasks that are executed while samples are taken.
type run struct {
	setup
	workers []servers.WorkerOptions
	orders  []servers.CeleryTask
}

// Whatever moment a sample hits, no task is missing in it and none is counted
// twice, but for those on their way.
func TestEverySampleIsWithinItsBoundsWhileTasksRun(t *testing.T) {
	for name, r := range runs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.watch(t)
		})
	}
}

func runs() map[string]run {
	return map[string]run{
		"late ack, prefetch 1": {
			workers: []servers.WorkerOptions{{Concurrency: 2, LateAck: true, Prefetch: 1}},
			orders:  []servers.CeleryTask{{N: 150, Sleep: 10 * time.Millisecond}, {N: 150}},
		},
		"late ack, prefetch 4": {
			workers: []servers.WorkerOptions{{Concurrency: 2, LateAck: true, Prefetch: 4}},
			orders:  []servers.CeleryTask{{N: 150, Sleep: 10 * time.Millisecond}, {N: 150}},
		},
		"early ack, prefetch 4": {
			workers: []servers.WorkerOptions{{Concurrency: 2, Prefetch: 4}},
			orders:  []servers.CeleryTask{{N: 150, Sleep: 10 * time.Millisecond}, {N: 150}},
		},
		"threads, late ack": {
			workers: []servers.WorkerOptions{{Pool: "threads", Concurrency: 3, LateAck: true, Prefetch: 2}},
			orders:  []servers.CeleryTask{{N: 150, Sleep: 10 * time.Millisecond}, {N: 150}},
		},
		"two workers, two queues, priorities, key prefix": {
			setup: setup{prefix: "myapp:"},
			workers: []servers.WorkerOptions{
				{Name: "one", Concurrency: 1, LateAck: true, Prefetch: 4, Queues: []string{"a", "b"}},
				{Name: "two", Concurrency: 1, LateAck: true, Prefetch: 1, Queues: []string{"b"}},
			},
			orders: []servers.CeleryTask{
				{N: 60, Queue: "a", Sleep: 5 * time.Millisecond},
				{N: 60, Queue: "a", Priority: new(3)},
				{N: 60, Queue: "b", Sleep: 5 * time.Millisecond, Priority: new(6)},
				{N: 60, Queue: "b", Priority: new(9)},
			},
		},
	}
}

// watch checks samples from the moment at which the gate opens. They say something
// once they have counted what was sent.
func (r run) watch(t *testing.T) {
	f, _ := newFlow(t, r.setup, r.workers...)
	f.occupy(t, r.workers)
	for _, order := range r.orders {
		f.publish(t, order)
	}
	f.await(t, func() string { return f.uncounted(t) })
	f.OpenGate(t, "gate")
	s := f.watch(t, func() bool { return f.progress(t).Finished == f.sent })
	if s.samples < 50 || s.unknown > s.samples/2 {
		t.Errorf("too little was seen to mean anything: %+v", s)
	}
	f.settlesAt(t, f.empty(r.orders))
}

// While a worker takes as many messages as it may, which it does in a burst, none
// is missing but the one on its way, and none is seen in two places.
func TestMessagesAreSeenWhileAWorkerTakesThem(t *testing.T) {
	t.Parallel()
	f, workers := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 1, LateAck: true, Prefetch: 500})
	for range 3 {
		workers[0].Signal(t, syscall.SIGSTOP)
		f.publish(t, servers.CeleryTask{N: 150, Gate: "gate"})
		workers[0].Signal(t, syscall.SIGCONT)
		f.watch(t, func() bool {
			now, err := f.sample(t)
			return err == nil && now["celery"] == counts{InFlight: f.sent}
		})
	}
	f.OpenGate(t, "gate")
	f.watch(t, func() bool { return f.progress(t).Finished == f.sent })
	f.settlesAt(t, map[string]counts{"celery": {}})
}

// occupy makes the workers' slots wait for a gate. Workers that share a queue take
// as much of it as they may: all that they hold waits.
func (f *flow) occupy(t *testing.T, workers []servers.WorkerOptions) {
	t.Helper()
	for _, w := range workers {
		name := ""
		if len(w.Queues) > 0 {
			name = w.Queues[0]
		}
		f.publish(t, servers.CeleryTask{N: w.Concurrency * w.Prefetch, Queue: name, Gate: "gate"})
	}
	f.await(t, func() string { return cmp.Diff(progress{Started: f.slots}, f.progress(t)) })
}

// empty is the queues that tasks were sent to, without any.
func (f *flow) empty(orders []servers.CeleryTask) map[string]counts {
	all := map[string]counts{}
	for _, order := range orders {
		if order.Queue == "" {
			order.Queue = "celery"
		}
		all[order.Queue] = counts{}
	}
	return all
}
