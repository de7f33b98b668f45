package servers_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// patience bounds every wait of these tests; none depends on its length.
const patience = 60 * time.Second

func TestWorkerFinishesWhatWasPublished(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	sent := publishAll(t, app, "")
	app.StartWorker(t, servers.WorkerOptions{LateAck: true, Prefetch: 1})
	awaitAll(t, app, sent)
}

// publishAll publishes tasks of all kinds.
func publishAll(t *testing.T, app *servers.Celery, queue string) []string {
	t.Helper()
	urgent := 0
	return slices.Concat(
		app.Publish(t, servers.CeleryTask{N: 100, Queue: queue}),
		app.Publish(t, servers.CeleryTask{N: 10, Queue: queue, Priority: &urgent, Sleep: time.Millisecond}),
		app.Publish(t, servers.CeleryTask{N: 10, Queue: queue, Countdown: time.Second}),
	)
}

func awaitAll(t *testing.T, app *servers.Celery, sent []string) {
	t.Helper()
	awaitFinished(t, app, len(sent))
	if diff := cmp.Diff(sent, app.Record(t).Finished, cmpopts.SortSlices(isBefore)); diff != "" {
		t.Errorf("published (-) and finished (+) tasks differ:\n%s", diff)
	}
}

func TestWorkerConsumesItsQueuesAlone(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{
		BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0),
		Queues: []servers.CeleryQueue{
			{Name: "video", Exchange: "media", ExchangeType: "topic", RoutingKey: "video.#"},
		},
	})
	app.StartWorker(t, servers.WorkerOptions{Queues: []string{"video"}, Pool: "solo"})
	app.Publish(t, servers.CeleryTask{N: 5, Queue: "video"})
	want := app.Publish(t, servers.CeleryTask{N: 5, Exchange: "media", RoutingKey: "video.hd"})
	app.Publish(t, servers.CeleryTask{N: 5, Queue: "video"})
	awaitFinished(t, app, 15)

	for _, id := range want {
		if !slices.Contains(app.Record(t).Started, id) {
			t.Errorf("task %s, sent through the topic exchange, was not executed", id)
		}
	}
}

func TestWorkerEndsAfterItsTasksOnSIGTERM(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	worker := app.StartWorker(t, servers.WorkerOptions{Concurrency: 1, LateAck: true, Prefetch: 1})
	app.Publish(t, servers.CeleryTask{N: 1, Sleep: 2 * time.Second})
	eventually.Holds(t, patience, "a started task", func() bool { return len(app.Record(t).Started) == 1 })
	worker.Signal(t, syscall.SIGTERM)
	select {
	case <-worker.Done():
	case <-time.After(patience):
		t.Fatal("the worker goes on after SIGTERM")
	}
	if got := len(app.Record(t).Finished); got != 1 {
		t.Errorf("%d tasks finished by the end of the warm shutdown, want 1", got)
	}
}

func TestGeventWorkerExecutesTasksAtOnce(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	app.StartWorker(t, servers.WorkerOptions{Pool: "gevent", Concurrency: 10})
	sent := app.Publish(t, servers.CeleryTask{N: 10, Gate: "gate"})
	eventually.Holds(t, patience, "ten tasks at the gate", func() bool { return len(app.Record(t).Started) == 10 })
	// Remote control is answered by the same thread.
	if got := app.Inspect(t, "celery@worker").Active; !cmp.Equal(sent, got, cmpopts.SortSlices(isBefore)) {
		t.Errorf("executing by the worker's own account: %v, want %v", got, sent)
	}
	app.OpenGate(t, "gate")
	awaitAll(t, app, sent)
}

func TestKillLeavesNoPoolProcess(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	worker := app.StartWorker(t, servers.WorkerOptions{})
	pool := childrenOf(t, worker.PID())
	if len(pool) != 2 {
		t.Fatalf("the worker has %d pool processes, want 2", len(pool))
	}
	// To the main process alone: the death of a parent must be enough.
	worker.Signal(t, syscall.SIGKILL)
	eventually.Holds(t, patience, "the end of the pool processes", func() bool { return !slices.ContainsFunc(pool, isRunning) })
	worker.Kill()
}

func awaitFinished(t *testing.T, app *servers.Celery, n int) {
	t.Helper()
	eventually.Holds(t, patience, "all tasks to finish", func() bool { return len(app.Record(t).Finished) >= n })
}

func isBefore(a, b string) bool { return a < b }

func TestWhatWorkersHoldIsSeenPurgedAndLetGo(t *testing.T) {
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	app.StartWorker(t, servers.WorkerOptions{LateAck: true, Prefetch: 2})
	later := app.Publish(t, servers.CeleryTask{N: 3, Countdown: time.Hour})
	eventually.Holds(t, patience, "the scheduled tasks", func() bool { return len(app.Inspect(t, "celery@worker").Scheduled) == 3 })
	sent := app.Publish(t, servers.CeleryTask{N: 10, Gate: "gate"})
	want := servers.Held{Active: sent[:2], Reserved: sent[2:4], Scheduled: later}
	eventually.Holds(t, patience, "the worker to hold what it may", func() bool {
		return cmp.Equal(want, app.Inspect(t, "celery@worker"), cmpopts.SortSlices(isBefore))
	})
	if got := app.Purge(t, "celery"); got != 6 {
		t.Errorf("%d messages were purged, want the 6 that are not held", got)
	}
	app.OpenGate(t, "gate")
	awaitFinished(t, app, 4)
}
