package groundtruth_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// Whatever moment a sample hits, no task is missing in it and none is counted
// twice, but for those on their way.
func TestEverySampleIsWithinItsBoundsWhileTasksRun(t *testing.T) {
	cases := map[string]struct {
		setup
		workers []servers.WorkerOptions
		orders  []servers.CeleryTask
	}{
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
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := newFlow(t, c.setup, c.workers...)
			f.occupy(t, c.workers)
			for _, order := range c.orders {
				f.publish(t, order)
			}
			f.OpenGate(t, "gate")
			s := f.watch(t, func() bool { return f.progress(t).Finished == f.sent })
			if s.samples < 50 || s.unknown > s.samples/2 {
				t.Errorf("too little was seen to mean anything: %+v", s)
			}
			f.settlesAt(t, f.empty(c.orders))
		})
	}
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

// occupy makes the workers' slots wait for a gate.
func (f *flow) occupy(t *testing.T, workers []servers.WorkerOptions) {
	t.Helper()
	for _, w := range workers {
		name := ""
		if len(w.Queues) > 0 {
			name = w.Queues[0]
		}
		f.publish(t, servers.CeleryTask{N: w.Concurrency, Queue: name, Gate: "gate"})
	}
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
