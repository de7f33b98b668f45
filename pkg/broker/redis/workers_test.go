package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// patience bounds every wait of these tests; none depends on its length.
const patience = 60 * time.Second

func newWorkers(t *testing.T, cfg redis.Config) *redis.Workers {
	t.Helper()
	cfg.Ref, cfg.Timeout = queue.BrokerRef{Namespace: "ns", Name: "broker"}, brokertest.Timeout
	w, err := redis.NewWorkers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// ear is somebody who listens.
type ear struct {
	stop      context.CancelFunc
	listening chan struct{}
	ended     chan struct{}

	mu     sync.Mutex
	events []monitor.WorkerEvent
	errors []error
	err    error
}

// newEar begins to listen; the test need not end it.
func newEar(t *testing.T, w *redis.Workers) *ear {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	e := &ear{stop: stop, listening: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		err := w.Listen(ctx, func() { close(e.listening) }, e.hear)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.err = err
	}()
	t.Cleanup(func() { stop(); <-e.ended })
	return e
}

// listen is newEar, and returns when events are heard.
func listen(t *testing.T, w *redis.Workers) *ear {
	t.Helper()
	e := newEar(t, w)
	select {
	case <-e.listening:
	case <-e.ended:
		t.Fatalf("Listen returned: %v", e.err)
	case <-time.After(patience):
		t.Fatal("Listen does not listen")
	}
	return e
}

func (e *ear) hear(event monitor.WorkerEvent, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.errors = append(e.errors, err)
		return
	}
	e.events = append(e.events, event)
}

// count is how many events have been heard that are as wanted.
func (e *ear) count(isWanted func(monitor.WorkerEvent) bool) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, event := range e.events {
		if isWanted(event) {
			n++
		}
	}
	return n
}

// wrong are the errors that have been heard.
func (e *ear) wrong() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.errors)
}

// await waits for an event.
func (e *ear) await(t *testing.T, what string, isWanted func(monitor.WorkerEvent) bool) {
	t.Helper()
	eventually.Holds(t, patience, what, func() bool { return e.count(isWanted) > 0 })
}

// end waits for Listen to return, and returns its error.
func (e *ear) end(t *testing.T) error {
	t.Helper()
	select {
	case <-e.ended:
	case <-time.After(patience):
		t.Fatal("Listen goes on")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// beats recognizes a heartbeat with so many active tasks.
func beats(active int64) func(monitor.WorkerEvent) bool {
	return func(e monitor.WorkerEvent) bool {
		return e.State == monitor.WorkerBeating && e.Active == celery.Number{N: active, Known: true}
	}
}

func says(state monitor.WorkerState) func(monitor.WorkerEvent) bool {
	return func(e monitor.WorkerEvent) bool { return e.State == state }
}

// keysOf are all keys of a database that a question may have left. What kombu's
// workers do with theirs is not looked at.
func keysOf(t *testing.T, admin *goredis.Client) []string {
	t.Helper()
	keys, err := admin.Keys(context.Background(), "*"+celery.OwnQueuePrefix+"*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// aclUser makes a user of a server, and returns a function that adds rules, and the
// URL to log in with.
func aclUser(t *testing.T, server *servers.Redis) (allow func(rules ...string), url string) {
	t.Helper()
	allow = func(rules ...string) {
		t.Helper()
		args := []any{"acl", "setuser", "limited"}
		for _, rule := range rules {
			args = append(args, rule)
		}
		if err := server.Admin().Do(context.Background(), args...).Err(); err != nil {
			t.Fatalf("ACL SETUSER %q: %v", rules, err)
		}
	}
	allow("reset", "on", ">pw", "-@all")
	return allow, "redis://limited:pw@" + server.Address()
}

// namedRights are the rules that an error tells to add.
func namedRights(t *testing.T, err error) []string {
	t.Helper()
	brokertest.CheckText(t, err, "NOPERM", "ns/broker", "127.0.0.1")
	_, after, found := strings.Cut(err.Error(), "needs ")
	rights, _, ended := strings.Cut(after, " (ACL SETUSER)")
	if !found || !ended {
		t.Fatalf("the error names no rule: %v", err)
	}
	return strings.Fields(rights)
}

// The rule in an error is what its user needs, and no more: without any of it, it is
// an error again, but for what is named as optional.
func TestErrorsNameTheRightsThatAreNeeded(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	app := servers.NewCelery(t, servers.CeleryOptions{
		BrokerURL: server.URL(3), Conf: map[string]any{"broker_transport_options": map[string]any{"global_keyprefix": "myapp:"}},
	})
	app.StartWorker(t, servers.WorkerOptions{Concurrency: 1})
	awaitControl(t, server, "myapp:/3.celery.pidbox", 1)
	allow, url := aclUser(t, server)
	cfg := redis.Config{URL: url + "/3", GlobalKeyPrefix: "myapp:"}
	for name, c := range map[string]struct {
		use      func() error
		optional []string
	}{
		"listen": {func() error { return hearOne(t, newWorkers(t, cfg)) }, []string{"+ping"}},
		"ask":    {func() error { return askOne(t, newWorkers(t, cfg)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			allow("reset", "on", ">pw", "-@all")
			rights := namedRights(t, c.use())
			allow(rights...)
			if err := c.use(); err != nil {
				t.Errorf("with the rights %q: %v", rights, err)
			}
			for i, right := range rights {
				allow("reset", "on", ">pw", "-@all")
				allow(slices.Delete(slices.Clone(rights), i, i+1)...)
				err := c.use()
				if slices.Contains(c.optional, right) {
					if err != nil {
						t.Errorf("without %s of %q: %v", right, rights, err)
					}
					continue
				}
				brokertest.CheckText(t, err, "needs ", right)
			}
		})
	}
}

// One user of Redis 7 can do everything and still not touch a message.
func TestOneUserForSamplesAndWorkers(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(0)})
	app.StartWorker(t, servers.WorkerOptions{Concurrency: 1, Prefetch: 1})
	app.Publish(t, servers.CeleryTask{N: 5, Gate: "gate"})
	awaitControl(t, server, "/0.celery.pidbox", 1)
	allow, url := aclUser(t, server)
	allow(strings.Fields("%R~* ~celery-hpa.replies.* resetchannels &/0.celeryev/worker.* &/0.celery.pidbox " +
		"+multi +exec +llen +lindex +exists +hlen +zcard +zrange +hstrlen +hmget +scan +smembers +role +client|setname " +
		"+psubscribe +ping +publish +del +rpush +expire +lpop")...)
	cfg := newKombu(server, redis.Config{}).cfg
	cfg.URL = url + "/0"
	w := newWorkers(t, cfg)
	if err := errors.Join(hearOne(t, w), askOne(t, w)); err != nil {
		t.Error(err)
	}
	cfg.Executing = func() []monitor.ExecutingTask { return executingTasks(t, w) }
	d := newDriver(t, cfg)
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {Backlog: 3, InFlight: 2}})

	options, err := goredis.ParseURL(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	limited := goredis.NewClient(options)
	defer func() { _ = limited.Close() }()
	for _, err := range []error{
		limited.LPop(t.Context(), "celery").Err(), limited.Del(t.Context(), "celery").Err(), limited.RPush(t.Context(), "celery", "x").Err(),
		limited.Expire(t.Context(), "unacked", time.Second).Err(), limited.Publish(t.Context(), "other", "x").Err(),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("a command for what belongs to others: %v, want NOPERM", err)
		}
	}
}

// hearOne listens until a worker was heard several times, or returns the error.
func hearOne(t *testing.T, w *redis.Workers) error {
	t.Helper()
	e := newEar(t, w)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-e.ended:
			return e.err
		case <-time.After(20 * time.Millisecond):
		}
		if e.count(says(monitor.WorkerBeating)) > 2 { // with pings in between
			e.stop()
			return nil
		}
	}
	return errors.New("nothing is heard")
}

// awaitControl waits until so many workers hear remote control in a channel: they do
// so some time after they have begun to consume. They pass over what is empty.
func awaitControl(t *testing.T, server *servers.Redis, channel string, workers int64) {
	t.Helper()
	eventually.Holds(t, patience, "workers to hear remote control", func() bool {
		return server.Admin().Publish(context.Background(), channel, "").Val() == workers
	})
}

// askOne asks the one worker that there is.
func askOne(t *testing.T, w *redis.Workers) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	replies, err := w.Ask(ctx, monitor.MethodStats, []string{"celery@worker"})
	if err == nil && len(replies) != 1 {
		err = fmt.Errorf("%d answers, want 1", len(replies))
	}
	return err
}

func TestNewWorkersRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"redis://:SECRET@:1": "no host", "amqp://u:SECRET@h": "not read by the Redis driver", "sentinel://:SECRET@h": "master_name",
		"rediss://:SECRET@h?ssl_ca_certs=/nowhere": "/nowhere",
	} {
		_, err := redis.NewWorkers(redis.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("NewWorkers = %v, want an error with %q and no credential", err, want)
		}
	}
}
