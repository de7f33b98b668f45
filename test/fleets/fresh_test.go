package fleets_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// heartbeats are told to come so seldom that none tells of what has just begun, and that
// a worker that does not answer still lives by them.
const heartbeats = "--heartbeat-interval=20"

var broker = queue.BrokerRef{Namespace: namespace, Name: "broker"}

// crew is real workers of one broker, and a group that hears and asks them.
type crew struct {
	*servers.Celery
	store         *workers.Store
	group         *workers.Group
	pause, resume func(testing.TB)
}

func TestFreshLooks(t *testing.T) {
	t.Run("Redis", func(t *testing.T) {
		server := servers.StartRedis(t, servers.RedisOptions{})
		newCrew(t, &crew{pause: server.Pause, resume: server.Resume}, server.URL(0), func() (workers.Source, error) {
			return redis.NewWorkers(redis.Config{Ref: broker, URL: server.URL(0)})
		}).test(t)
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
		newCrew(t, &crew{pause: server.Pause, resume: server.Resume}, server.URL("/"), func() (workers.Source, error) {
			return rabbitmq.NewWorkers(rabbitmq.Config{Ref: broker, URL: server.URL("/")})
		}).test(t)
	})
}

func newCrew(t *testing.T, c *crew, url string, open func() (workers.Source, error)) *crew {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c.Celery = servers.NewCelery(t, servers.CeleryOptions{BrokerURL: url})
	c.store = workers.NewStore()
	unseen := func(string, string) (has, known bool) { return false, false }
	c.group = workers.NewGroup(c.store, nobody{}, unseen, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c.group.Apply(ctx, []workers.Spec{{Ref: broker, Control: true, Fingerprint: "1", Open: open}})
	t.Cleanup(func() {
		cancel()
		c.group.Wait()
	})
	eventually.Holds(t, longPatience, "heartbeats to be heard", func() bool { return c.store.Listening(namespace) == nil })
	return c
}

// nobody is told of what is heard.
type nobody struct{}

func (nobody) Heard(queue.BrokerRef, error) {}
func (nobody) Deaf(queue.BrokerRef)         {}

// launch starts a worker with a queue of its own, without waiting for it.
func (c *crew) launch(t *testing.T, name, pool string) *servers.Worker {
	t.Helper()
	return c.LaunchWorker(t, servers.WorkerOptions{Name: name, Queues: []string{name}, Pool: pool, Concurrency: 2, Args: []string{heartbeats}})
}

func (c *crew) test(t *testing.T) {
	all := []string{"prefork", "threads", "solo"}
	if err := c.group.Fresh(t.Context(), namespace, all); err != nil {
		t.Errorf("without workers Fresh says %v", err)
	}
	prefork := c.launch(t, "prefork", "prefork")
	c.launch(t, "threads", "threads")
	c.launch(t, "solo", "solo")
	eventually.Holds(t, longPatience, "all workers to be heard", func() bool { return len(c.store.Of(broker)) == len(all) })
	eventually.Holds(t, longPatience, "all workers to answer", func() bool { return c.group.Fresh(t.Context(), namespace, all) == nil })
	for _, name := range all {
		if v := c.judge(name); v.State != fleet.Idle {
			t.Errorf("%s is %s: %s", name, v.State, v.Reason)
		}
	}
	t.Run("a task that has begun is found before a heartbeat tells", func(t *testing.T) { c.testBegun(t) })
	t.Run("a busy worker of the solo pool does not answer", func(t *testing.T) { c.testSilent(t, "solo") })
	t.Run("nor does a frozen one", func(t *testing.T) {
		prefork.Signal(t, syscall.SIGSTOP)
		defer prefork.Signal(t, syscall.SIGCONT)
		c.testSilent(t, "prefork")
	})
	t.Run("a broker that does not answer is an error", c.testPaused)
}

func (c *crew) testBegun(t *testing.T) {
	for _, name := range []string{"prefork", "threads", "solo"} {
		c.Publish(t, servers.CeleryTask{N: 1, Queue: name, Gate: name})
	}
	eventually.Holds(t, longPatience, "the tasks to begin", func() bool { return len(c.Record(t).Started) == 3 })
	for _, name := range []string{"prefork", "threads"} {
		// A process of the pool begins before its worker knows.
		eventually.Holds(t, longPatience, "the task of "+name, func() bool {
			return c.group.Fresh(t.Context(), namespace, []string{name}) == nil && c.store.OnHost(namespace, name)[0].Told == 1
		})
		if v := c.judge(name); v.State != fleet.Busy || v.Active.N != 1 {
			t.Errorf("after the look %s is %s with %d tasks: %s", name, v.State, v.Active.N, v.Reason)
		}
	}
}

func (c *crew) judge(host string) fleet.Verdict {
	return fleet.Judge(c.store.OnHost(namespace, host)[0], time.Now())
}

// testSilent expects one worker not to answer, and to be named, and another to answer.
func (c *crew) testSilent(t *testing.T, name string) {
	eventually.Holds(t, longPatience, name+" to be the one that does not answer", func() bool {
		err := c.group.Fresh(t.Context(), namespace, []string{name, "threads"})
		if !errors.Is(err, workers.ErrUnanswered) || !strings.Contains(err.Error(), "celery@"+name) {
			t.Fatalf("Fresh says %v, want that %s does not answer", err, name)
		}
		return strings.HasSuffix(err.Error(), "no answer within 1s of celery@"+name) // else the machine is slow
	})
}

func (c *crew) testPaused(t *testing.T) {
	c.pause(t)
	defer c.resume(t)
	err := c.group.Fresh(t.Context(), namespace, []string{"threads"})
	if !errors.Is(err, workers.ErrNoControl) || !strings.Contains(err.Error(), "broker airflow/broker") {
		t.Errorf("Fresh says %v, want that nobody can be asked", err)
	}
}
