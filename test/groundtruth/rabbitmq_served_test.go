package groundtruth_test

import (
	"fmt"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// What the HPA is told is the truth too, across queues. How many tasks are scheduled
// is a truth that nobody has while workers hold some: it is told no number.
func servedMetricsAreTheTruth(t *testing.T, s setup) {
	f, _ := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4, Queues: []string{"a"}})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "a", Gate: "gate"})
	f.publish(t, servers.CeleryTask{N: 30, Queue: "b"})
	f.settlesAt(t, map[string]counts{"a": {Backlog: 42, InFlight: 8}, "b": {Backlog: 30}})

	metrics := serve(t, f.url, fmt.Sprintf("rabbitmq: {managementURL: %q}", s.rabbitMQ.server.ManagementURL()))
	f.await(t, func() string {
		return metrics.differ(t, "a", map[string]int64{
			"celery_queue_backlog": 42, "celery_queue_in_flight": 8, "celery_queue_tasks": 50,
		})
	})
	f.await(t, func() string {
		return metrics.differ(t, "a,b", map[string]int64{"celery_queue_backlog": 72, "celery_queue_tasks": 80})
	})
	if n, err := metrics.value(t, "celery_queue_scheduled", "a"); err == nil {
		t.Errorf("%d tasks are scheduled, which nobody can know", n)
	}
	f.OpenGate(t, "gate")
	f.await(t, func() string {
		return metrics.differ(t, "a", map[string]int64{
			"celery_queue_backlog": 0, "celery_queue_in_flight": 0,
			"celery_queue_scheduled": 0, "celery_queue_tasks": 0,
		})
	})
}
