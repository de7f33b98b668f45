package groundtruth_test

import (
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
	// prefix is the transport option global_keyprefix.
	prefix string
	// declared are the queues with an exchange of their own.
	declared []servers.CeleryQueue
}

// installation is a Celery application on a Redis of its own, and a driver that
// discovers its queues.
type installation struct {
	*servers.Celery
	server *servers.Redis
	driver *redis.Driver
}

func install(t *testing.T, s setup) *installation {
	t.Helper()
	server := servers.StartRedis(t, servers.RedisOptions{})
	conf := map[string]any{}
	if s.prefix != "" {
		conf["broker_transport_options"] = map[string]any{"global_keyprefix": s.prefix}
	}
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(0), Conf: conf, Queues: s.declared})
	driver, err := redis.New(redis.Config{
		Ref: queue.BrokerRef{Namespace: "ground", Name: "truth"}, URL: server.URL(0),
		GlobalKeyPrefix: s.prefix, Timeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	return &installation{Celery: app, server: server, driver: driver}
}

// counts are the numbers of one queue.
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
		if tasks := depth.Tasks(); tasks.Err != nil {
			return nil, fmt.Errorf("queue %s: %w", name, tasks.Err)
		}
		all[name] = counts{depth.Backlog.N, depth.InFlight.N, depth.Scheduled.N}
	}
	if s.Unattributed > 0 {
		return nil, fmt.Errorf("%d messages are not attributed", s.Unattributed)
	}
	return all, nil
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
