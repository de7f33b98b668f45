package groundtruth_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// To purge a queue takes what waits, and not what a worker holds.
func TestPurgedQueueIsKnownAndHoldsWhatWorkersHold(t *testing.T) {
	t.Parallel()
	purgedQueue(t, setup{})
}

func purgedQueue(t *testing.T, s setup) {
	f, _ := newFlow(t, s, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 1})
	f.publish(t, servers.CeleryTask{N: 50, Gate: "gate"})
	f.publish(t, servers.CeleryTask{N: 50, Gate: "gate", Priority: new(9)})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 98, InFlight: 2}})

	if got := f.Purge(t, "celery"); got != 98 {
		t.Errorf("%d messages were purged, want 98", got)
	}
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 2}})
	f.OpenGate(t, "gate")
	f.settlesAt(t, map[string]counts{"celery": {}})
	if got := f.progress(t).Finished; got != 2 {
		t.Errorf("%d tasks have finished, want the 2 that a worker held", got)
	}
}

// FLUSHALL takes everything, what workers hold and the names of the queues
// included. A queue that was known is empty then, and not unknown.
func TestFlushedQueuesAreKnownAndEmpty(t *testing.T) {
	t.Parallel()
	f, _ := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4})
	f.publish(t, servers.CeleryTask{N: 50, Gate: "gate"})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "other", Priority: new(3)})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 42, InFlight: 8}, "other": {Backlog: 50}})

	if err := f.server.Admin().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.settlesAt(t, map[string]counts{"celery": {}, "other": {}})

	// The worker goes on with what it has in memory.
	f.OpenGate(t, "gate")
	f.await(t, func() string { return cmp.Diff(progress{8, 8}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": {}, "other": {}})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "other"})
	f.publish(t, servers.CeleryTask{N: 10})
	f.await(t, func() string { return cmp.Diff(progress{18, 18}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": {}, "other": {Backlog: 50}})
}
