package groundtruth_test

import (
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// A worker that is told to end finishes what executes and puts back what it has
// reserved. No sample may miss one of them on the way.
func TestWarmShutdownLosesNoTaskFromSight(t *testing.T) {
	warmShutdowns(t, setup{})
}

func warmShutdowns(t *testing.T, s setup) {
	cases := map[string]servers.WorkerOptions{
		"late ack":  {Concurrency: 2, LateAck: true, Prefetch: 40},
		"early ack": {Concurrency: 2, Prefetch: 40},
	}
	for name, options := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			warmShutdown(t, s, options)
		})
	}
}

func warmShutdown(t *testing.T, s setup, options servers.WorkerOptions) {
	f, workers := newFlow(t, s, options)
	sent := f.publish(t, servers.CeleryTask{N: 2, Gate: "first"})
	sent = append(sent, f.publish(t, servers.CeleryTask{N: 100})...)
	f.await(t, func() string { return cmp.Diff(progress{Started: 2}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": f.reserved(2)})

	f.mayPutBack(f.prefetch)
	workers[0].Signal(t, syscall.SIGTERM)
	f.OpenGate(t, "first")
	f.watch(t, func() bool { return hasEnded(workers[0]) })

	done := f.progress(t)
	t.Logf("%+v", done)
	f.settlesAt(t, map[string]counts{"celery": {Backlog: f.sent - done.Finished}})
	if done.Started != done.Finished || done.Finished == f.sent {
		t.Errorf("%+v of %d tasks at the end of a warm shutdown", done, f.sent)
	}

	f.StartWorker(t, servers.WorkerOptions{Name: "next"})
	f.finishes(t, sent)
	f.settlesAt(t, map[string]counts{"celery": {}})
}

// reserved is what is true of the default queue while a number of tasks executes
// and the workers hold as many more as they may.
func (f *flow) reserved(executing int64) counts {
	if f.late {
		return counts{Backlog: f.sent - f.prefetch, InFlight: f.prefetch}
	}
	return counts{Backlog: f.sent - f.prefetch - executing, InFlight: f.prefetch}
}

// awaitEnd waits until a worker has ended.
func (i *installation) awaitEnd(t *testing.T, w *servers.Worker) {
	t.Helper()
	i.await(t, func() string { return cmp.Diff(true, hasEnded(w)) })
}

func hasEnded(w *servers.Worker) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}

// What a killed worker has held stays in unacked, until another worker puts it
// back after the visibility timeout: an hour, unless set. It is work that is not
// done.
func TestTasksOfAKilledWorkerStayInFlight(t *testing.T) {
	t.Parallel()
	f, workers := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4})
	f.publish(t, servers.CeleryTask{N: 100, Gate: "gate"})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 92, InFlight: 8}})
	workers[0].Kill()
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 92, InFlight: 8}})

	f.StartWorker(t, servers.WorkerOptions{Name: "next", Concurrency: 3, LateAck: true, Prefetch: 1})
	f.settlesAt(t, map[string]counts{"celery": {Backlog: 89, InFlight: 11}})
	f.OpenGate(t, "gate")
	f.await(t, func() string { return cmp.Diff(f.sent-8, f.progress(t).Finished) })
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 8}})
}
