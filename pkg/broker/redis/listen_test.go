package redis_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// publishEvent publishes an event as a worker does, of a node, in one channel or several.
func publishEvent(t *testing.T, admin *goredis.Client, node string, channels ...string) {
	t.Helper()
	body := fmt.Sprintf(`{"type":"worker-heartbeat","hostname":%q,"pid":1,"freq":2.0,"active":0,"processed":0}`, node)
	publish(t, admin, eventMessage("application/json", "utf-8", "", []byte(body)), channels...)
}

// eventMessage is the envelope of a body.
func eventMessage(contentType, encoding, headers string, body []byte) string {
	return fmt.Sprintf(`{"body":%q,"content-type":%q,"content-encoding":%q,"headers":{%s},"properties":{"body_encoding":"base64","delivery_tag":%q}}`,
		base64.StdEncoding.EncodeToString(body), contentType, encoding, headers, uuid.NewString())
}

func publish(t *testing.T, admin *goredis.Client, message string, channels ...string) {
	t.Helper()
	for _, channel := range channels {
		if err := admin.Publish(context.Background(), channel, message).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// isOf recognizes the events of a node.
func isOf(node string) func(monitor.WorkerEvent) bool {
	return func(e monitor.WorkerEvent) bool { return e.Node == node }
}

func TestWorkerIsHeardFromItsStartToItsEnd(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(0)})
	e := listen(t, newWorkers(t, redis.Config{URL: server.URL(0)}))
	worker := app.StartWorker(t, servers.WorkerOptions{Concurrency: 2})
	e.await(t, "the first event", says(monitor.WorkerOnline))
	e.await(t, "an idle worker", beats(0))
	app.Publish(t, servers.CeleryTask{N: 1, Gate: "one"})
	app.Publish(t, servers.CeleryTask{N: 1, Gate: "two"})
	e.await(t, "a worker with two tasks", beats(2))
	app.OpenGate(t, "one")
	e.await(t, "a worker with one task that has taken two", func(event monitor.WorkerEvent) bool {
		return beats(1)(event) && event.Processed.N == 2
	})
	worker.Signal(t, syscall.SIGTERM)
	e.await(t, "the last event", says(monitor.WorkerOffline))
	if got := len(app.Record(t).Finished); got != 1 {
		t.Errorf("%d tasks are finished when the worker says that it goes, want 1 of 2", got)
	}
	app.OpenGate(t, "two")
	<-worker.Done()
	e.stop()
	if err := e.end(t); err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("Listen = %v, want the context's error", err)
	}
	if wrong := e.wrong(); len(wrong) > 0 {
		t.Errorf("errors were heard: %v", wrong)
	}
}

// With Sentinel, workers may publish everything twice.
func TestEventOfTwoChannelsIsHeardOnce(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	sentinel := servers.StartSentinel(t, server, servers.SentinelOptions{MasterName: "main"})
	url := fmt.Sprintf("sentinel://%s/2", sentinel.Address())
	w := newWorkers(t, redis.Config{URL: url, MasterName: "main", GlobalKeyPrefix: "myapp:"})
	e := listen(t, w)
	both := []string{"myapp:/2.celeryev/worker.heartbeat", "myapp:/{db}.celeryev/worker.heartbeat"}
	publishEvent(t, server.Admin(), "a@old", both[1])
	publishEvent(t, server.Admin(), "a@new", both[0])
	publishEvent(t, server.Admin(), "a@both", both...)
	publishEvent(t, server.Admin(), "a@other", "/2.celeryev/worker.heartbeat", "myapp:/3.celeryev/worker.heartbeat")
	publish(t, server.Admin(), "the same", both[0], both[0], both[1])
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: url, Conf: map[string]any{
		"broker_transport_options": map[string]any{"master_name": "main", "sentinel_fanout_compat": true, "global_keyprefix": "myapp:"},
	}})
	app.StartWorker(t, servers.WorkerOptions{Concurrency: 1})
	e.await(t, "a heartbeat of the worker", func(event monitor.WorkerEvent) bool {
		return event.Node == "celery@worker" && event.State == monitor.WorkerBeating
	})
	for node, want := range map[string]int{"a@old": 1, "a@new": 1, "a@both": 1, "a@other": 0} {
		if got := e.count(isOf(node)); got != want {
			t.Errorf("%s was heard %d times, want %d", node, got, want)
		}
	}
	if got := e.count(says(monitor.WorkerOnline)); got != 1 {
		t.Errorf("the worker was heard %d times to be online, want 1", got)
	}
	if wrong := e.wrong(); len(wrong) != 2 {
		t.Errorf("a message that came twice by one pattern was heard %d times, want 2: %v", len(wrong), wrong)
	}
	awaitControl(t, server, both[1][:len("myapp:/{db}.")]+celery.ControlExchange, 1)
	if err := askOne(t, w); err != nil {
		t.Errorf("ask through both channels: %v", err)
	}
}

func TestUndecodableEventsAreErrorsAndHarmless(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	e := listen(t, newWorkers(t, redis.Config{URL: server.URL(0)}))
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	secret := "hunter2"
	good := []byte(`{"type":"worker-heartbeat","hostname":"a@b","x":"` + secret + `"}`)
	messages := map[string]string{
		"nothing":              "",
		"random bytes":         string(random),
		"a long message":       eventMessage("application/json", "utf-8", "", []byte(strings.Repeat(secret, 150_000))),
		"a pickle":             eventMessage("application/x-python-serialize", "binary", "", []byte("\x80\x04"+secret)),
		"msgpack":              eventMessage("application/x-msgpack", "binary", "", []byte("\x82"+secret)),
		"YAML":                 eventMessage("application/x-yaml", "utf-8", "", []byte(secret)),
		"compressed":           eventMessage("application/json", "utf-8", `"compression":"application/x-gzip"`, good),
		"protocol of Redis":    "\r\n*4\r\n$8\r\npmessage\r\n" + secret,
		"another kind of news": eventMessage("application/json", "utf-8", "", []byte(`{"type":"`+secret+`","hostname":"a@b"}`)),
	}
	for _, message := range messages {
		publish(t, server.Admin(), message, "/0.celeryev/worker.heartbeat")
	}
	publishEvent(t, server.Admin(), "celery@last", "/0.celeryev/worker.heartbeat")
	e.await(t, "an event after those", isOf("celery@last"))
	wrong := e.wrong()
	if events := e.count(func(monitor.WorkerEvent) bool { return true }); len(wrong) != len(messages) || events != 1 {
		t.Errorf("%d events and %d errors were heard, want 1 and %d: %v", events, len(wrong), len(messages), wrong)
	}
	for _, err := range wrong {
		if !errors.Is(err, monitor.ErrEvent) || strings.Contains(err.Error(), secret) {
			t.Errorf("heard %v, want ErrEvent that quotes nothing", err)
		}
	}
}

func TestListenEndsWithItsServerAndBeginsAnew(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss"})
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	e := listen(t, w)
	server.Stop(t)
	brokertest.CheckText(t, e.end(t), "listen to the workers of broker ns/broker at "+server.Address(), "the subscription is lost")
	brokertest.CheckText(t, newEar(t, w).end(t), server.Address(), "is the server running")
	server.Start(t)
	e = listen(t, w)
	publishEvent(t, server.Admin(), "a@b", "/0.celeryev/worker.heartbeat")
	e.await(t, "an event after the restart", isOf("a@b"))
}

func TestListenEndsWhenItsConnectionIsCut(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	e := listen(t, newWorkers(t, redis.Config{URL: server.URL(0)}))
	if err := server.Admin().ClientKillByFilter(context.Background(), "type", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	brokertest.CheckText(t, e.end(t), server.Address(), "the subscription is lost")
}

func TestListenNoticesThatItsServerIsSilent(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	e := listen(t, w)
	server.Pause(t)
	defer server.Resume(t)
	brokertest.CheckText(t, e.end(t), server.Address(), "paused", "not even to a ping")
	brokertest.CheckText(t, newEar(t, w).end(t), server.Address(), "no answer in time")
}

// Nothing else but pings keeps a connection alive on which nobody speaks.
func TestListenGoesOnWhileNobodySpeaks(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	e := listen(t, newWorkers(t, redis.Config{URL: server.URL(0)}))
	pings := func() int64 {
		calls, _ := newKombu(server, redis.Config{}).commandStats(t, "ping")
		return calls
	}
	before := pings()
	eventually.Holds(t, patience, "four pings", func() bool { return pings() >= before+4 })
	publishEvent(t, server.Admin(), "a@b", "/0.celeryev/worker.heartbeat")
	e.await(t, "an event after a long silence", isOf("a@b"))
}

func TestListenTriesEachServerOfAList(t *testing.T) {
	first := servers.StartRedis(t, servers.RedisOptions{})
	second := servers.StartRedis(t, servers.RedisOptions{})
	w := newWorkers(t, redis.Config{URL: first.URL(0) + ";" + second.URL(1)})
	e := listen(t, w)
	publishEvent(t, first.Admin(), "a@first", "/0.celeryev/worker.heartbeat")
	e.await(t, "an event of the first server", isOf("a@first"))
	first.Stop(t)
	brokertest.CheckText(t, e.end(t), first.Address())
	e = listen(t, w)
	publishEvent(t, second.Admin(), "a@second", "/1.celeryev/worker.heartbeat")
	e.await(t, "an event of the second server", isOf("a@second"))
	e.stop()
	<-e.ended
	second.Stop(t)
	brokertest.CheckText(t, newEar(t, w).end(t), first.Address(), second.Address(), "is the server running")
}
