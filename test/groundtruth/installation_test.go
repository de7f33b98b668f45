package groundtruth_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// patience bounds every wait of these tests; none depends on its length.
	patience = 60 * time.Second
	// pollInterval is how often a state is looked at that nothing announces.
	pollInterval = 5 * time.Millisecond
	// steadySamples is how many samples in a row must agree where nothing moves.
	steadySamples = 20
)

// setup is what differs from one installation to the other.
type setup struct {
	// rabbitMQ is the server that gives the broker. Nil: a Redis of the
	// installation's own.
	rabbitMQ *rabbitMQ
	// prefix is the transport option global_keyprefix, of Redis.
	prefix string
	// declared are the queues with an exchange or arguments of their own.
	declared []servers.CeleryQueue
}

// installation is a Celery application on a broker of its own, and a driver that
// discovers its queues.
type installation struct {
	*servers.Celery
	setup
	// url is the broker's.
	url    string
	driver driver
	// server is the Redis, vhost the virtual host of RabbitMQ, if it is one.
	server *servers.Redis
	vhost  string
	// delayed is how many messages RabbitMQ itself should hold back.
	delayed int64
}

// driver is what is watched.
type driver interface {
	Sample(ctx context.Context) (*queue.Sample, error)
	Close() error
}

func install(t *testing.T, s setup) *installation {
	t.Helper()
	i := &installation{setup: s}
	conf := map[string]any{}
	var err error
	if s.rabbitMQ != nil {
		i.vhost = s.rabbitMQ.addVhost(t)
		i.url = s.rabbitMQ.server.URL(i.vhost)
		i.driver, err = s.rabbitMQ.newDriver(i.vhost)
	} else {
		i.server = servers.StartRedis(t, servers.RedisOptions{})
		i.url = i.server.URL(0)
		i.driver, err = redis.New(redis.Config{Ref: ref(), URL: i.url, GlobalKeyPrefix: s.prefix, Timeout: patience})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.driver.Close() })
	if s.prefix != "" {
		conf["broker_transport_options"] = map[string]any{"global_keyprefix": s.prefix}
	}
	i.Celery = servers.NewCelery(t, servers.CeleryOptions{BrokerURL: i.url, Conf: conf, Queues: s.declared})
	return i
}

func ref() queue.BrokerRef { return queue.BrokerRef{Namespace: "ground", Name: "truth"} }

// counts are the numbers of one queue. RabbitMQ does not tell which messages are
// scheduled: there are none in the counts.
type counts struct{ Backlog, InFlight, Scheduled int64 }

// sample reads the broker. Counts that are not known are an error.
func (i *installation) sample(t *testing.T) (map[string]counts, error) {
	t.Helper()
	s, err := i.driver.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]counts{}
	for name, depth := range s.Queues {
		if all[name], err = i.numbers(depth); err != nil {
			return nil, fmt.Errorf("queue %s: %w", name, err)
		}
	}
	if s.Unattributed > 0 {
		return nil, fmt.Errorf("%d messages are not attributed", s.Unattributed)
	}
	if i.rabbitMQ != nil && (s.Delayed == nil || s.Delayed.N != i.delayed) {
		return nil, fmt.Errorf("%+v messages are delayed, want %d", s.Delayed, i.delayed)
	}
	return all, s.Degraded
}

// numbers are the counts of a queue. On RabbitMQ nobody knows how many of those in
// flight are scheduled, and all are work.
func (i *installation) numbers(d queue.Depth) (counts, error) {
	tasks := d.Tasks()
	switch hidden := i.rabbitMQ != nil && d.InFlight.N > 0; {
	case tasks.Err != nil:
		return counts{}, tasks.Err
	case !hidden:
		return counts{d.Backlog.N, d.InFlight.N, d.Scheduled.N}, d.Scheduled.Err
	case d.Scheduled.Err == nil:
		return counts{}, fmt.Errorf("%d are scheduled, which nobody can know", d.Scheduled.N)
	case tasks.N != d.Backlog.N+d.InFlight.N:
		return counts{}, fmt.Errorf("%d are tasks, want all: %+v", tasks.N, d)
	}
	return counts{Backlog: d.Backlog.N, InFlight: d.InFlight.N}, nil
}

// differs says in what a sample is not as wanted; it is empty if it is.
func (i *installation) differs(t *testing.T, want map[string]counts) string {
	t.Helper()
	got, err := i.sample(t)
	if err != nil {
		return err.Error()
	}
	return cmp.Diff(want, got)
}

// settlesAt waits until a sample has exactly the wanted queues and numbers.
// Nothing may move then, so that all further samples must say the same. Where the
// numbers could be right in passing, because a message on its way is in neither
// of them, the record is to be awaited first.
func (i *installation) settlesAt(t *testing.T, want map[string]counts) {
	t.Helper()
	i.await(t, func() string { return i.differs(t, want) })
	for range steadySamples {
		if diff := i.differs(t, want); diff != "" {
			t.Fatalf("nothing moves, but a sample differs from those before (-before +now):\n%s", diff)
		}
	}
}

// await polls until nothing is missing.
func (i *installation) await(t *testing.T, missing func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(pollInterval) {
		what := missing()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still (-want +got):\n%s\nthe record: %+v", patience, what, i.progress(t))
		}
	}
}

// progress is how many tasks have begun and ended. Every task is executed once
// in these tests, so that executions are tasks.
type progress struct{ Started, Finished int64 }

func (i *installation) progress(t *testing.T) progress {
	t.Helper()
	record := i.Record(t)
	return progress{int64(len(record.Started)), int64(len(record.Finished))}
}

// finishes waits until exactly these tasks have ended, none of them twice.
func (i *installation) finishes(t *testing.T, sent []string) {
	t.Helper()
	want := slices.Sorted(slices.Values(sent))
	i.await(t, func() string {
		return cmp.Diff(want, slices.Sorted(slices.Values(i.Record(t).Finished)))
	})
}

// total sums over all queues.
func total(all map[string]counts) counts {
	var sum counts
	for _, c := range all {
		sum.Backlog += c.Backlog
		sum.InFlight += c.InFlight
		sum.Scheduled += c.Scheduled
	}
	return sum
}
