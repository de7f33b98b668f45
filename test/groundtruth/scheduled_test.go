package groundtruth_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// A worker takes tasks with an ETA at once, beyond its prefetch count, and holds
// them. They are scheduled until their time has come, and work after that.
func TestScheduledAreTheTasksWhoseTimeIsStillToCome(t *testing.T) {
	t.Parallel()
	f, _ := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 1})
	f.publish(t, servers.CeleryTask{N: 20, Countdown: time.Hour})
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 20, Scheduled: 20}})

	soon := 3 * time.Second
	earliest := time.Now().Add(soon)
	f.publish(t, servers.CeleryTask{N: 10, Countdown: soon, Gate: "gate"})
	latest := time.Now().Add(soon)
	f.awaitDue(t, earliest, latest)
	f.await(t, func() string { return cmp.Diff(progress{Started: 2}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 30, Scheduled: 20}})

	f.await(t, func() string {
		says := f.Inspect(t, "celery@worker")
		return cmp.Diff([]int{2, 8, 20}, []int{len(says.Active), len(says.Reserved), len(says.Scheduled)})
	})
	f.OpenGate(t, "gate")
	f.settlesAt(t, map[string]counts{"celery": {InFlight: 20, Scheduled: 20}})
	if got := f.progress(t).Finished; got != 10 {
		t.Errorf("%d tasks have finished, want 10", got)
	}
}

// awaitDue samples until the 10 tasks with an ETA between two times are no longer
// scheduled, which they must be before and must not be after, whenever a worker
// takes them. The 20 tasks of the next hour are.
func (f *flow) awaitDue(t *testing.T, earliest, latest time.Time) {
	t.Helper()
	var at time.Time
	for !at.After(latest) {
		sample, err := f.driver.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at = sample.At
		depth := sample.Queues["celery"]
		if depth.Tasks().Err != nil {
			t.Fatal(depth.Tasks().Err)
		}
		notDue := depth.Backlog.N + depth.Scheduled.N
		switch {
		case at.Before(earliest) && (notDue < 30-f.gap || notDue > 30):
			t.Errorf("%v before any is due: %+v, want 30 waiting or scheduled", earliest.Sub(at), depth)
		case at.After(latest) && depth.Scheduled.N != 20:
			t.Errorf("%v after all are due: %+v, want 20 scheduled", at.Sub(latest), depth)
		}
		time.Sleep(pollInterval)
	}
}

// A worker asks for its next message while it has room for one, and the server
// may answer when it has none any more: the end of an ETA takes the room away
// that its beginning made. The worker leaves the answer unread until it has room
// again, and so long the message is in no list and not in unacked. The bounds of
// a flow allow for that; what matters is that such a worker is a full one, so that
// its queue never looks idle.
func TestQueueOfAFullWorkerNeverLooksIdle(t *testing.T) {
	t.Parallel()
	f, _ := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 1, LateAck: true, Prefetch: 1})
	f.publish(t, servers.CeleryTask{N: 1, Countdown: time.Second, Gate: "gate"})
	f.await(t, func() string { return cmp.Diff(progress{Started: 1}, f.progress(t)) })
	f.publish(t, servers.CeleryTask{N: 1})

	var s statistics
	for range 10 * steadySamples {
		f.check(t, &s)
		if now, err := f.sample(t); err != nil || now["celery"].InFlight != 1 {
			t.Fatalf("a task executes, but the sample is %+v, %v", now, err)
		}
	}
	t.Logf("%+v", s)
	f.OpenGate(t, "gate")
	f.await(t, func() string { return cmp.Diff(progress{2, 2}, f.progress(t)) })
	f.settlesAt(t, map[string]counts{"celery": {}})
}
