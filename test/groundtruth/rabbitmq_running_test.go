package groundtruth_test

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// Whatever moment a sample hits, no task is missing in it, and there are no more than
// at the time that it gives for its counts.
func everySampleIsWithinItsBounds(t *testing.T, s setup) {
	for name, r := range rabbitRuns() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.rabbitMQ = s.rabbitMQ
			r.watch(t)
		})
	}
}

func rabbitRuns() map[string]run {
	orders := []servers.CeleryTask{{N: 150, Sleep: 10 * time.Millisecond}, {N: 150}}
	two := func(prefetch int) []servers.WorkerOptions {
		return []servers.WorkerOptions{
			{Name: "one", Concurrency: 1, LateAck: true, Prefetch: prefetch},
			{Name: "two", Concurrency: 2, LateAck: true, Prefetch: prefetch},
		}
	}
	ranked := map[string]any{"x-max-priority": 10}
	return map[string]run{
		"late ack, prefetch 1": {workers: two(1), orders: orders},
		"late ack, prefetch 4": {workers: two(4), orders: orders},
		"early ack, prefetch 4": {
			workers: []servers.WorkerOptions{{Concurrency: 2, Prefetch: 4}},
			orders:  orders,
		},
		"two queues, priorities": {
			setup: setup{declared: []servers.CeleryQueue{{Name: "a", Arguments: ranked}, {Name: "b", Arguments: ranked}}},
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
		"quorum, late ack, prefetch 1": {setup: setup{declared: quorumQueues()}, workers: two(1), orders: orders},
		"quorum, late ack, prefetch 4": {setup: setup{declared: quorumQueues()}, workers: two(4), orders: orders},
	}
}

// A worker that starts is handed as many messages as it may have, in a burst: after
// the list and before the driver asks, or between two counts of a quorum queue. None
// is missing, and none is seen in two places.
func messagesAreSeenWhileAWorkerTakesThem(t *testing.T, s setup) {
	options := servers.WorkerOptions{Concurrency: 1, LateAck: true, Prefetch: 500}
	f := prepareFlow(t, s, options)
	f.publish(t, servers.CeleryTask{N: 300, Gate: "gate"})
	f.await(t, func() string { return f.uncounted(t) })
	f.LaunchWorker(t, options)
	f.watch(t, func() bool {
		now, err := f.sample(t)
		return err == nil && now["celery"] == counts{InFlight: f.sent}
	})
	f.settlesAt(t, map[string]counts{"celery": {InFlight: f.sent}})
}
