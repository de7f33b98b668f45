package rabbitmq_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// What real workers execute is in flight, whether the broker still knows of it or not.
func TestExecuting(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for name, c := range map[string]struct {
		lateAck   bool
		arguments map[string]any
		// inFlight is 8 unacknowledged messages (Celery's prefetch of 4 for each of
		// two processes), and with early acknowledgement the 2 tasks that execute.
		inFlight int64
	}{
		"early, classic": {false, map[string]any{}, 10},
		"late, classic":  {true, map[string]any{}, 8},
		"early, quorum":  {false, map[string]any{"x-queue-type": "quorum"}, 10},
		"late, quorum":   {true, map[string]any{"x-queue-type": "quorum"}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			b := startCelery(t, server, c.arguments)
			b.permit(t, `^celery-hpa\.`, `^(celery-hpa\.|celery\.pidbox$)`, `^celery-hpa\.`)
			app := b.app(t, servers.CeleryQueue{Name: "work", Arguments: c.arguments})
			app.StartWorker(t, servers.WorkerOptions{LateAck: c.lateAck})
			b.cfg.Executing = b.askAgainAndAgain(t, "celery@worker")
			ids := app.Publish(t, servers.CeleryTask{N: 20, Queue: "work", Gate: "gate"})
			eventually.Holds(t, patience, "the worker to hold what it may", func() bool {
				held := app.Inspect(t, "celery@worker")
				return len(held.Active) == 2 && int64(len(held.Active)+len(held.Reserved)) == c.inFlight
			})
			want := map[string]brokertest.Counts{"work": {Backlog: 20 - c.inFlight, InFlight: c.inFlight}}
			d := b.NewDriver(t, brokertest.RightPassword)
			brokertest.Expect(t, b, d, want)
			steady(t, b, d, want["work"])
			app.OpenGate(t, "gate")
			eventually.Holds(t, patience, "all tasks to finish", func() bool { return len(app.Record(t).Finished) == len(ids) })
			brokertest.Expect(t, b, d, map[string]brokertest.Counts{"work": {}})
		})
	}
}

// steady fails the test if, while nothing happens, one of some samples has other counts.
func steady(t *testing.T, b *celeryBroker, d brokertest.Driver, want brokertest.Counts) {
	t.Helper()
	for range 20 {
		s, err := d.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		depth := s.Queues["work"]
		if got := (brokertest.Counts{Backlog: depth.Backlog.N, InFlight: depth.InFlight.N}); got != want || depth.Tasks().N != 20 {
			t.Errorf("the queue is %+v, want %+v", depth, want)
		}
	}
}

// askAgainAndAgain returns what a worker has last answered that it executes.
func (b *celeryBroker) askAgainAndAgain(t *testing.T, node string) func() []monitor.ExecutingTask {
	t.Helper()
	w := b.workers(t)
	var latest atomic.Pointer[[]monitor.ExecutingTask]
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if tasks := executing(ctx, w, node); tasks != nil {
				latest.Store(&tasks)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	eventually.Holds(t, patience, "the worker's first answer", func() bool { return latest.Load() != nil })
	return func() []monitor.ExecutingTask { return *latest.Load() }
}

// executing is nil if the worker does not tell.
func executing(ctx context.Context, w *rabbitmq.Workers, node string) []monitor.ExecutingTask {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	replies, err := w.Ask(ctx, monitor.MethodActive, []string{node})
	if err != nil || len(replies) != 1 {
		return nil
	}
	active, err := replies[0].Active()
	if err != nil {
		return nil
	}
	tasks := []monitor.ExecutingTask{}
	for _, a := range active {
		tasks = append(tasks, monitor.ExecutingTask{ID: a.ID, Queue: a.RoutingKey, Acknowledged: a.Acknowledged})
	}
	return tasks
}

// TestWhatExecutes is about what Executing tells.
func TestWhatExecutes(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for name, test := range map[string]func(t *testing.T, b *celeryBroker){
		"acknowledged tasks are in flight, of their own queue": acknowledgedTasks,
		"a queue that is not known stays unknown":              unknownStays,
		"none is missed that is acknowledged during a sample":  acknowledgedMeanwhile,
	} {
		t.Run(name, func(t *testing.T) {
			b := startCelery(t, server, nil)
			b.Publish(t, "celery", make([]brokertest.Message, 3)...)
			test(t, b)
		})
	}
}

// expect waits for a backlog, and for so many in flight.
func expect(t *testing.T, d brokertest.Driver, name string, want brokertest.Counts) *queue.Sample {
	t.Helper()
	var latest *queue.Sample
	await(t, d, name+" to be as wanted", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		latest = s
		q := s.Queues[name]
		return q.Tasks().Err == nil && brokertest.Counts{Backlog: q.Backlog.N, InFlight: q.InFlight.N} == want
	})
	return latest
}

func acknowledgedTasks(t *testing.T, b *celeryBroker) {
	b.Publish(t, "other", make([]brokertest.Message, 2)...)
	b.Publish(t, "gone", brokertest.Message{})
	taken := b.Take(t, "celery", 2)
	b.Take(t, "other", 1)
	calls := 0
	var tasks []monitor.ExecutingTask
	b.cfg.Executing = func() []monitor.ExecutingTask { calls++; return slices.Clone(tasks) }
	d := b.NewDriver(t, brokertest.RightPassword)
	as := func() {
		t.Helper()
		expect(t, d, "celery", brokertest.Counts{Backlog: 1, InFlight: 2})
		expect(t, d, "other", brokertest.Counts{Backlog: 1, InFlight: 1})
	}
	as()
	tasks = []monitor.ExecutingTask{{ID: "1", Queue: "celery"}, {ID: "2", Queue: "celery"}, {ID: "3", Queue: "other"}}
	as()
	for i := range 2 {
		tasks[i].Acknowledged = true
		expect(t, d, "celery", brokertest.Counts{Backlog: 1, InFlight: 3})
		b.Acknowledge(t, taken[i])
		as()
	}
	before := calls
	s, err := d.Sample(t.Context())
	if err != nil || calls != before+1 {
		t.Fatalf("Executing was called %d times for a sample (%v), want once", calls-before, err)
	}
	// No message is held that could wait for an ETA.
	if c := s.Queues["celery"].Scheduled; c.Err != nil || c.N != 0 {
		t.Errorf("scheduled is %+v, want a known zero", c)
	}

	tasks = append(tasks, monitor.ExecutingTask{ID: "4", Queue: "gone", Acknowledged: true})
	b.Delete(t, "gone")
	expect(t, d, "gone", brokertest.Counts{InFlight: 1})
	tasks = nil
	expect(t, d, "celery", brokertest.Counts{Backlog: 1})
	expect(t, d, "gone", brokertest.Counts{})
}

func unknownStays(t *testing.T, b *celeryBroker) {
	b.cfg.Executing = func() []monitor.ExecutingTask {
		return []monitor.ExecutingTask{{ID: "1", Queue: "typo", Acknowledged: true}, {ID: "2", Queue: "celery", Acknowledged: true}}
	}
	checkUnknown(t, b.NewDriver(t, brokertest.RightPassword, "typo"), "typo", `no queue "typo"`)
	s := expect(t, b.NewDriver(t, brokertest.RightPassword), "celery", brokertest.Counts{Backlog: 3, InFlight: 1})
	if len(s.Queues) != 1 {
		t.Errorf("the queues are %+v, want celery alone", s.Queues)
	}
	b.SetUser(t, driverUser, brokertest.Secret) // may not ask the management API any more
	s, err := b.NewDriver(t, brokertest.RightPassword, "celery").Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	brokertest.CheckText(t, s.Queues["celery"].InFlight.Err, "needs the tag management")
}

// A task that is acknowledged just after the workers were asked was a message before.
func acknowledgedMeanwhile(t *testing.T, b *celeryBroker) {
	var acknowledge func()
	b.cfg.Executing = func() []monitor.ExecutingTask {
		if acknowledge != nil {
			acknowledge()
		}
		return nil
	}
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	for held := range 3 {
		taken := b.Take(t, "celery", 1)
		brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {Backlog: int64(2 - held), InFlight: 1}})
		acknowledge = func() { b.Acknowledge(t, taken...) }
		s, err := d.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkInFlight(t, s, 1)
		acknowledge = nil
	}
}

func checkInFlight(t *testing.T, s *queue.Sample, want int64) {
	t.Helper()
	if c := s.Queues["celery"].InFlight; c.Err != nil || c.N != want {
		t.Errorf("in flight is %+v, want %d", c, want)
	}
}
