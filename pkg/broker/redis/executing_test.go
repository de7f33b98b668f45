package redis_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// told is what the workers of a test are said to execute.
type told struct {
	tasks []monitor.ExecutingTask
	// calls is how often somebody wanted to know.
	calls int
}

func (x *told) executing() []monitor.ExecutingTask {
	x.calls++
	return slices.Clone(x.tasks)
}

// idOf is the id of the task of a message.
func idOf(t testing.TB, d brokertest.Delivery) string {
	t.Helper()
	var m struct {
		Headers struct {
			ID string `json:"id"`
		} `json:"headers"`
	}
	if err := json.Unmarshal([]byte(d.(delivery).text), &m); err != nil || m.Headers.ID == "" {
		t.Fatalf("%s has no id: %v", d.(delivery).text, err)
	}
	return m.Headers.ID
}

// startExecuting makes a broker whose driver is told what executes.
func startExecuting(t *testing.T, cfg redis.Config) (*kombuBroker, *told) {
	t.Helper()
	x := &told{}
	cfg.Executing = x.executing
	return startKombu(t, cfg), x
}

func TestExecutingTasksAreInFlightOnce(t *testing.T) {
	b, x := startExecuting(t, redis.Config{})
	d := b.NewDriver(t, brokertest.RightPassword, "fast", "slow")
	expect := func(fast, slow brokertest.Counts) {
		t.Helper()
		brokertest.Expect(t, b, d, map[string]brokertest.Counts{"fast": fast, "slow": slow})
	}
	b.Publish(t, "fast", make([]brokertest.Message, 5)...)
	held := b.Take(t, "fast", 3)
	expect(brokertest.Counts{Backlog: 2, InFlight: 3}, brokertest.Counts{})

	// Late acknowledgement, early acknowledgement, and one that was acknowledged
	// when the worker was asked and is held all the same.
	x.tasks = []monitor.ExecutingTask{
		{ID: idOf(t, held[0]), Queue: "fast"},
		{ID: "not-a-uuid", Queue: "slow", Acknowledged: true},
		{ID: idOf(t, held[1]), Queue: "fast", Acknowledged: true},
		{ID: uuid.NewString(), Queue: "fast", Acknowledged: true},
		{ID: uuid.NewString(), Queue: "other", Acknowledged: true},
	}
	expect(brokertest.Counts{Backlog: 2, InFlight: 4}, brokertest.Counts{InFlight: 1})
	// Two workers execute one task, which was delivered again.
	x.tasks = append(x.tasks, x.tasks...)
	expect(brokertest.Counts{Backlog: 2, InFlight: 4}, brokertest.Counts{InFlight: 1})
	// Acknowledged since the worker was asked.
	b.Acknowledge(t, held[0])
	expect(brokertest.Counts{Backlog: 2, InFlight: 4}, brokertest.Counts{InFlight: 1})
	// Of another queue, as a worker may say it: the message decides.
	x.tasks = []monitor.ExecutingTask{{ID: idOf(t, held[1]), Queue: "slow"}}
	expect(brokertest.Counts{Backlog: 2, InFlight: 2}, brokertest.Counts{})
	b.Acknowledge(t, held[1:]...)
	expect(brokertest.Counts{Backlog: 2}, brokertest.Counts{InFlight: 1})
	x.tasks = nil
	expect(brokertest.Counts{Backlog: 2}, brokertest.Counts{})
	if s := sampleOf(t, d); len(s.Queues) != 2 {
		t.Errorf("%d queues are sampled, want the 2 of the configuration", len(s.Queues))
	}
}

func TestTaskOfProtocol1IsKnownByItsCorrelationID(t *testing.T) {
	b, x := startExecuting(t, redis.Config{})
	b.holdValue(t, "tag", `[{"body":"e30=","headers":{},"properties":{"correlation_id":"4711","body_encoding":"base64"}}, "", "celery"]`)
	x.tasks = []monitor.ExecutingTask{{ID: "4711", Queue: "celery"}}
	brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword, "celery"), map[string]brokertest.Counts{"celery": {InFlight: 1}})
}

func TestExecutingIsAskedOncePerSample(t *testing.T) {
	b, x := startExecuting(t, redis.Config{})
	d := b.NewDriver(t, brokertest.RightPassword)
	b.Declare(t, "celery")
	for want := range 3 {
		if x.calls != want {
			t.Errorf("after %d samples somebody asked %d times what executes", want, x.calls)
		}
		sampleOf(t, d)
	}
}

func TestQueueOfAnExecutingTaskIsDiscovered(t *testing.T) {
	b, x := startExecuting(t, redis.Config{})
	b.Publish(t, "unbound", brokertest.Message{})
	x.tasks = []monitor.ExecutingTask{{ID: "1", Queue: "unbound", Acknowledged: true}, {ID: "2", Queue: "worker.celery.pidbox", Acknowledged: true}}
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"unbound": {Backlog: 1, InFlight: 1}})
	x.tasks = nil
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"unbound": {Backlog: 1}})
	if s := sampleOf(t, d); len(s.Queues) != 1 {
		t.Errorf("%d queues are discovered, want 1", len(s.Queues))
	}
}

// What executes tells nothing about what is held.
func TestUnknownStaysUnknownWhateverExecutes(t *testing.T) {
	b, x := startExecuting(t, redis.Config{MaxFetch: 1})
	x.tasks = []monitor.ExecutingTask{{ID: "1", Queue: "busy", Acknowledged: true}}
	d := b.NewDriver(t, brokertest.RightPassword, "busy", "idle")
	unknown := func(words string, names ...string) {
		t.Helper()
		s := sampleOf(t, d)
		for _, name := range names {
			if err := s.Queues[name].InFlight.Err; err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("in flight of queue %s is %+v, want it unknown: %s", name, s.Queues[name].InFlight, words)
			}
		}
	}
	// Not all is read.
	b.Publish(t, "idle", make([]brokertest.Message, 3)...)
	held := b.Take(t, "idle", 3)
	unknown("still to be read", "busy", "idle")
	b.Acknowledge(t, held...)
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"busy": {InFlight: 1}, "idle": {}})
	// One may be of any queue.
	b.holdValue(t, "odd", "odd")
	unknown("may be of any queue", "idle")
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { b.release(ctx, p, "odd") })
	// A task of which nobody knows the queue.
	x.tasks = append(x.tasks, monitor.ExecutingTask{ID: "2", Acknowledged: true})
	unknown("a worker executes it", "idle")
	if s := sampleOf(t, d); s.Unattributed != 1 || s.Queues["busy"].InFlight != queue.Known(1, s.At) {
		t.Errorf("%d are unattributed, and the busy queue is %+v; want 1 and 1", s.Unattributed, s.Queues["busy"])
	}
	// Nothing can be read.
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Set(ctx, "unacked", "x", 0) })
	unknown("WRONGTYPE", "busy", "idle")
}

// In a random choice, one that is held may be missing: only the acknowledged ones are
// certain to be none of those.
func TestEstimateAddsAcknowledgedTasksAlone(t *testing.T) {
	b, x := startExecuting(t, redis.Config{MaxTags: 100})
	b.Publish(t, "celery", make([]brokertest.Message, 300)...)
	held := b.Take(t, "celery", 300)
	for _, each := range held {
		x.tasks = append(x.tasks, monitor.ExecutingTask{ID: idOf(t, each), Queue: "celery"})
	}
	for range 7 {
		x.tasks = append(x.tasks, monitor.ExecutingTask{ID: uuid.NewString(), Queue: "celery", Acknowledged: true})
	}
	x.tasks = append(x.tasks, monitor.ExecutingTask{ID: uuid.NewString(), Queue: "early", Acknowledged: true})
	x.tasks = append(x.tasks, monitor.ExecutingTask{ID: uuid.NewString(), Queue: "idle"})
	d := b.NewDriver(t, brokertest.RightPassword, "celery", "early", "idle")
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {InFlight: 307}, "early": {InFlight: 1}})
	if idle := sampleOf(t, d).Queues["idle"].InFlight; idle.Err == nil {
		t.Errorf("in flight of the idle queue is %+v, want unknown", idle)
	}
}

// In flight is what a worker executes and what it has reserved, whenever it
// acknowledges.
func TestInFlightIsWhatWorkersExecuteAndReserve(t *testing.T) {
	t.Parallel()
	for name, lateAck := range map[string]bool{"early acknowledgement": false, "late acknowledgement": true} {
		t.Run(name, func(t *testing.T) {
			server := servers.StartRedis(t, servers.RedisOptions{})
			app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(0)})
			w := newWorkers(t, redis.Config{URL: server.URL(0)})
			cfg := newKombu(server, redis.Config{}).cfg
			cfg.URL = server.URL(0)
			cfg.Executing = func() []monitor.ExecutingTask { return executingTasks(t, w) }
			d := newDriver(t, cfg)

			sent := app.Publish(t, servers.CeleryTask{N: 20, Gate: "gate"})
			app.StartWorker(t, servers.WorkerOptions{Concurrency: 2, Prefetch: 4, LateAck: lateAck})
			eventually.Holds(t, patience, "the worker to hold what it may", func() bool {
				held := app.Inspect(t, "celery@worker")
				want := map[bool]int{false: 8, true: 6}[lateAck]
				return len(held.Active) == 2 && len(held.Reserved) == want
			})
			inFlight := map[bool]int64{false: 10, true: 8}[lateAck]
			for range 3 {
				brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {Backlog: 20 - inFlight, InFlight: inFlight}})
			}
			app.OpenGate(t, "gate")
			brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {}})
			record := app.Record(t)
			slices.Sort(record.Finished)
			slices.Sort(sent)
			if diff := cmp.Diff(sent, record.Finished); diff != "" {
				t.Errorf("nothing is in flight, but not everything is finished (-sent +finished):\n%s", diff)
			}
		})
	}
}

// executingTasks asks the worker of a test.
func executingTasks(t *testing.T, w *redis.Workers) []monitor.ExecutingTask {
	t.Helper()
	var tasks []monitor.ExecutingTask
	for _, task := range activeOf(t, ask(t, w, monitor.MethodActive, patience, "celery@worker")) {
		if task.Exchange != "" {
			t.Errorf("a task came through exchange %q", task.Exchange)
		}
		tasks = append(tasks, monitor.ExecutingTask{ID: task.ID, Queue: task.RoutingKey, Acknowledged: task.Acknowledged})
	}
	return tasks
}

// BenchmarkSampleOf100000UnackedAnd5000Executing is BenchmarkSampleOf100000Unacked
// with tasks that execute, half of them held.
func BenchmarkSampleOf100000UnackedAnd5000Executing(b *testing.B) {
	x := &told{}
	benchmarkUnacked(b, redis.Config{Executing: x.executing}, func(held []string) int64 {
		x.tasks = nil
		for i := range 2500 {
			x.tasks = append(x.tasks, monitor.ExecutingTask{ID: held[len(held)-1-i], Queue: "queue-0"})
			x.tasks = append(x.tasks, monitor.ExecutingTask{ID: fmt.Sprintf("%08x-0000-4000-8000-000000000000", i), Queue: "queue-0", Acknowledged: true})
		}
		return 2500
	})
}
