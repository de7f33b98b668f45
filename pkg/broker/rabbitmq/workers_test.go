package rabbitmq_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// TestWorkers runs on one server, each test in a virtual host of its own, with a user
// that may listen and ask, and no more.
func TestWorkers(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for name, test := range map[string]func(t *testing.T, b *celeryBroker){
		"a worker is heard from its start to its shutdown":     heard,
		"only the workers of the virtual host are heard":       otherWorkers,
		"a worker is heard that is the first there ever was":   firstWorker,
		"an exchange that is deleted and made again":           exchangeAgain,
		"messages that are no events are reported and no harm": noEvents,
		"a missing right is named, as a line to paste":         namedRights,
		"no right can be done without":                         leastRights,
		"a right to a topic is named":                          topicRights,
		"workers answer":                                       answers,
		"a frozen worker and one that is none do not answer":   frozen,
		"nobody is asked":                                      nobodyAsked,
		"the question is one that Celery asks":                 question,
		"stray replies are dropped":                            strayReplies,
		"stray replies are not read for ever":                  manyStrayReplies,
		"no worker":                                            noWorker,
		"no worker ever":                                       noWorkerEver,
		"a broker out of memory takes no question":             noMemory,
		"own queues cannot grow, and go with the connection":   ownQueues,
		"own queues are no queues of tasks":                    noTaskQueues,
		"a queue that is taken away":                           taken,
		"a limit of queues is named":                           queueLimit,
		"a server that is started again":                       restarted,
		"a silent server":                                      silent,
		"a second server that answers where the first is not":  secondServer,
	} {
		t.Run(name, func(t *testing.T) {
			b := startCelery(t, server, nil)
			b.permit(t, `^celery-hpa\.`, `^(celery-hpa\.|celery\.pidbox$)`, `^(celery-hpa\.|celeryev$)`)
			test(t, b)
		})
	}
}

// permit gives the drivers' user the permissions of these patterns.
func (b *celeryBroker) permit(t testing.TB, configure, write, read string) {
	t.Helper()
	b.API(t, http.MethodPut, "/permissions/"+url.PathEscape(b.vhost)+"/"+driverUser,
		map[string]string{"configure": configure, "write": write, "read": read})
}

// workers are those of the broker, heard by the drivers' user.
func (b *celeryBroker) workers(t testing.TB) *rabbitmq.Workers {
	t.Helper()
	return b.workersAt(t, b.UserURL(driverUser, brokertest.Secret, b.vhost))
}

func (b *celeryBroker) workersAt(t testing.TB, url string) *rabbitmq.Workers {
	t.Helper()
	cfg := b.cfg
	cfg.URL = url
	return newWorkers(t, cfg)
}

func newWorkers(t testing.TB, cfg rabbitmq.Config) *rabbitmq.Workers {
	t.Helper()
	w, err := rabbitmq.NewWorkers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// app is a Celery application of the virtual host.
func (b *celeryBroker) app(t testing.TB, queues ...servers.CeleryQueue) *servers.Celery {
	t.Helper()
	return servers.NewCelery(t, servers.CeleryOptions{BrokerURL: b.URL(b.vhost), Queues: queues})
}

// ear is a Listen under way.
type ear struct {
	stop  context.CancelFunc
	ended chan error // gets what Listen returns

	mu        sync.Mutex
	listening int
	events    []monitor.WorkerEvent
	errs      []error
}

// listen begins to listen. It ends with the test, which fails if Listen then does
// not return the error of its context.
func listen(t testing.TB, w *rabbitmq.Workers) *ear {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	e := &ear{stop: stop, ended: make(chan error, 1)}
	go func() {
		defer close(e.ended)
		err := w.Listen(ctx, e.isListening, e.hear)
		if ctx.Err() != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Listen = %v after its context was cancelled", err)
		}
		e.ended <- err
	}()
	t.Cleanup(func() {
		stop()
		for range e.ended {
		}
	})
	return e
}

// hearing begins to listen, and returns when that has begun.
func hearing(t testing.TB, w *rabbitmq.Workers) *ear {
	t.Helper()
	e := listen(t, w)
	eventually.Holds(t, patience, "listening to begin", func() bool {
		select {
		case err := <-e.ended:
			t.Fatalf("Listen = %v before it has begun", err)
		default:
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.listening > 0
	})
	return e
}

func (e *ear) isListening() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listening++
}

func (e *ear) hear(event monitor.WorkerEvent, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.errs = append(e.errs, err)
		return
	}
	e.events = append(e.events, event)
}

// has reports whether an event was heard.
func (e *ear) has(wanted func(monitor.WorkerEvent) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.events, wanted)
}

// end waits for Listen to return by itself, with an error.
func (e *ear) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-e.ended:
		if err == nil {
			t.Fatal("Listen returns without an error")
		}
		return err
	case <-time.After(patience):
		t.Fatal("Listen does not return")
		return nil
	}
}

// ask asks for so long.
func ask(t testing.TB, w *rabbitmq.Workers, within time.Duration, m monitor.Method, nodes ...string) ([]monitor.ControlReply, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return w.Ask(ctx, m, nodes)
}

// queue is what the management API shows of a queue.
type shownQueue struct {
	Name                           string
	Durable, Exclusive, AutoDelete bool
	Arguments                      map[string]any
}

// own are the queues that celery-hpa has made in the virtual host.
func (b *celeryBroker) own(t testing.TB) []shownQueue {
	t.Helper()
	var all []struct {
		shownQueue
		AutoDelete bool `json:"auto_delete"`
	}
	text := b.API(t, http.MethodGet, "/queues/"+url.PathEscape(b.vhost), nil)
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	var own []shownQueue
	for _, q := range all {
		if strings.HasPrefix(q.Name, celery.OwnQueuePrefix) {
			q.shownQueue.AutoDelete = q.AutoDelete
			own = append(own, q.shownQueue)
		}
	}
	return own
}

func (b *celeryBroker) awaitNoneOfOurs(t testing.TB) {
	t.Helper()
	eventually.Holds(t, patience, "our queues to be gone", func() bool { return len(b.own(t)) == 0 })
}

func ownQueues(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	w := b.workers(t)
	e := hearing(t, w)
	if replies, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil || len(replies) != 1 {
		t.Fatalf("Ask = %d replies, %v, want one", len(replies), err)
	}
	kinds := []string{"celery-hpa.events.", "celery-hpa.replies."}
	eventually.Holds(t, patience, "two queues to be shown", func() bool { return len(b.own(t)) == len(kinds) })
	for _, q := range b.own(t) {
		kinds = slices.DeleteFunc(kinds, func(prefix string) bool { return strings.HasPrefix(q.Name, prefix) })
		if q.Durable || !q.Exclusive || !q.AutoDelete {
			t.Errorf("%s is not as it should be: %+v", q.Name, q)
		}
		for _, bound := range []string{"x-max-length", "x-max-length-bytes", "x-message-ttl"} {
			if n, _ := q.Arguments[bound].(float64); n <= 0 {
				t.Errorf("%s has no bound %s: %v", q.Name, bound, q.Arguments)
			}
		}
	}
	if len(kinds) > 0 {
		t.Errorf("there is no queue %v", kinds)
	}
	e.stop()
	eventually.Holds(t, patience, "the queue of events to be gone", func() bool { return len(b.own(t)) == 1 })
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	b.awaitNoneOfOurs(t)
}

// Other replicas of ours listen and ask, too.
func noTaskQueues(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", make([]brokertest.Message, 2)...)
	b.Publish(t, celery.OwnQueuePrefix+"events.of-some-other-version", brokertest.Message{})
	hearing(t, b.workers(t))
	eventually.Holds(t, patience, "the queue of events", func() bool { return len(b.own(t)) == 2 })
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {Backlog: 2}})
	s, err := d.Sample(t.Context())
	if err != nil || len(s.Queues) != 1 {
		t.Errorf("the queues are %+v (%v), want celery alone", s.Queues, err)
	}
}

func taken(t *testing.T, b *celeryBroker) {
	w := b.workers(t)
	e := hearing(t, w)
	eventually.Holds(t, patience, "the queue of events", func() bool { return len(b.own(t)) == 1 })
	b.Control(t, "eval", `Name = rabbit_misc:r(<<"`+b.vhost+`">>, queue, <<"`+b.own(t)[0].Name+`">>),
		{ok, Q} = rabbit_amqqueue:lookup(Name), rabbit_amqqueue:delete(Q, false, false, <<"test">>).`)
	brokertest.CheckText(t, e.end(t), "listen to the workers of broker ns/broker", b.Address(), "somebody deleted it")
	hearing(t, w)
}

func queueLimit(t *testing.T, b *celeryBroker) {
	b.API(t, http.MethodPut, "/vhost-limits/"+url.PathEscape(b.vhost)+"/max-queues", map[string]any{"value": 0})
	brokertest.CheckText(t, listen(t, b.workers(t)).end(t), "declare queue", "limit", "set_vhost_limits")
}

func restarted(t *testing.T, b *celeryBroker) {
	app := b.app(t)
	app.StartWorker(t, servers.WorkerOptions{})
	w := b.workers(t)
	e := hearing(t, w)
	if _, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil {
		t.Fatal(err)
	}
	b.Stop(t)
	brokertest.CheckText(t, e.end(t), "listen to the workers of broker ns/broker", b.Address())
	_, err := ask(t, w, patience, monitor.MethodStats, "celery@worker")
	brokertest.CheckText(t, err, "ask the workers of broker ns/broker", b.Address(), "connection refused", "is the server running")
	brokertest.CheckText(t, listen(t, w).end(t), "connection refused", "is the server running")
	b.Start(t)
	e = hearing(t, w)
	eventually.Holds(t, patience, "the worker to be heard again", func() bool {
		return e.has(func(e monitor.WorkerEvent) bool { return e.Node == "celery@worker" })
	})
	eventually.Holds(t, patience, "the worker to answer again", func() bool {
		replies, err := ask(t, w, 10*time.Second, monitor.MethodStats, "celery@worker")
		return err == nil && len(replies) == 1
	})
}

func silent(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	w := b.workers(t)
	e := hearing(t, w)
	if _, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil {
		t.Fatal(err)
	}
	b.Pause(t)
	resume := sync.OnceFunc(func() { b.Resume(t) })
	defer resume() // what comes after a failure must not wait for it
	_, err := ask(t, w, time.Second, monitor.MethodStats, "celery@worker")
	brokertest.CheckText(t, err, "ask the workers of broker ns/broker", "no answer in time")
	brokertest.CheckText(t, e.end(t), "listen to the workers of broker ns/broker", "no answer in time")
	brokertest.CheckText(t, listen(t, w).end(t), "no answer in time")
	resume()
	hearing(t, w)
	if replies, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil || len(replies) != 1 {
		t.Errorf("Ask = %d replies, %v, want one", len(replies), err)
	}
}

func secondServer(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	good := b.UserURL(driverUser, brokertest.Secret, b.vhost)
	for _, url := range []string{"amqp://127.0.0.1:1;" + good, good + ";amqp://127.0.0.1:1"} {
		w := b.workersAt(t, url)
		hearing(t, w)
		if replies, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil || len(replies) != 1 {
			t.Errorf("%s: Ask = %d replies, %v, want one", url, len(replies), err)
		}
	}
	w := b.workersAt(t, "amqp://127.0.0.1:1;amqp://127.0.0.1:2")
	brokertest.CheckText(t, listen(t, w).end(t), "127.0.0.1:1", "127.0.0.1:2", "connection refused")
}
