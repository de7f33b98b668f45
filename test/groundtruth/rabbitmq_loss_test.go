package groundtruth_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// What a killed worker has held is backlog again as soon as the server sees its
// connection end. It is work that is not done, and no sample misses it.
func killedWorker(t *testing.T, s setup) {
	f, workers := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4})
	sent := f.publish(t, servers.CeleryTask{N: 100, Gate: "gate"})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 92, InFlight: 8}})
	f.await(t, func() string { return f.uncounted(t) })

	f.mayPutBack(f.prefetch)
	workers[0].Kill()
	looks := 0
	f.watch(t, func() bool {
		looks++
		return looks > steadySamples && f.differs(t, map[string]counts{"celery": {Backlog: 100}}) == ""
	})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 100}})

	f.StartWorker(t, servers.WorkerOptions{Name: "next", Concurrency: 3, LateAck: true, Prefetch: 1})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 97, InFlight: 3}})
	f.OpenGate(t, "gate")
	f.finishes(t, sent)
	f.settlesAt(t, map[string]counts{"celery": {}})
}

// With a queue go all its messages, those that workers hold included. A queue that
// was known is empty then, and not unknown.
func deletedQueues(t *testing.T, s setup) {
	f, _ := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4})
	f.publish(t, servers.CeleryTask{N: 50, Gate: "gate"})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "other"})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 42, InFlight: 8}, "other": {Backlog: 50}})

	f.rabbitMQ.deleteQueue(t, f.vhost, "other")
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 42, InFlight: 8}, "other": {}})
	f.rabbitMQ.deleteQueue(t, f.vhost, "celery")
	f.await(t, func() string { return f.differs(t, map[string]counts{"celery": {}, "other": {}}) })

	// With the queue the worker loses its connection. It goes on with what it
	// executes, drops what it has reserved, and declares the queue again. So do
	// other workers, but not a publisher, whose messages are lost until then.
	f.OpenGate(t, "gate")
	f.await(t, func() string { return cmp.Diff(progress{2, 2}, f.progress(t)) })
	f.await(t, func() string { return cmp.Diff(true, f.rabbitMQ.hasQueue(t, f.vhost, "celery")) })
	f.settlesAt(t, map[string]counts{"celery": {}, "other": {}})
	f.StartWorker(t, servers.WorkerOptions{Name: "next", Queues: []string{"other"}})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "other"})
	f.publish(t, servers.CeleryTask{N: 10})
	f.await(t, func() string { return cmp.Diff(progress{62, 62}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": {}, "other": {}})
}
