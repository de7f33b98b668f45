package rabbitmq_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// beat is a heartbeat with these counts.
func beat(node string, active, processed int64) func(monitor.WorkerEvent) bool {
	return func(e monitor.WorkerEvent) bool {
		return e.State == monitor.WorkerBeating && e.Node == node && e.PID.Known && e.Frequency == 2*time.Second &&
			e.Active == celery.Number{N: active, Known: true} && e.Processed == celery.Number{N: processed, Known: true}
	}
}

func said(node string, state monitor.WorkerState) func(monitor.WorkerEvent) bool {
	return func(e monitor.WorkerEvent) bool { return e.Node == node && e.State == state }
}

func heard(t *testing.T, b *celeryBroker) {
	app := b.app(t)
	app.StartWorker(t, servers.WorkerOptions{Name: "before"}) // who makes the exchange
	e := hearing(t, b.workers(t))
	worker := app.StartWorker(t, servers.WorkerOptions{Name: "pod-1"})
	await := func(what string, wanted func(monitor.WorkerEvent) bool) {
		t.Helper()
		eventually.Holds(t, patience, what, func() bool { return e.has(wanted) })
	}
	await("the start", said("celery@pod-1", monitor.WorkerOnline))
	await("a heartbeat of the other worker", beat("celery@before", 0, 0))
	await("a heartbeat", beat("celery@pod-1", 0, 0))
	app.Publish(t, servers.CeleryTask{N: 4, Gate: "gate"})
	await("a heartbeat with two tasks", beat("celery@pod-1", 2, 2))
	worker.Signal(t, syscall.SIGTERM)
	await("the shutdown", said("celery@pod-1", monitor.WorkerOffline))
	select {
	case <-worker.Done():
		t.Error("the worker has not waited for its tasks")
	default:
	}
	app.OpenGate(t, "gate")
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.errs) > 0 || e.listening != 1 {
		t.Errorf("listening was said %d times, the errors are %v", e.listening, e.errs)
	}
}

func otherWorkers(t *testing.T, b *celeryBroker) {
	other := startCelery(t, b.RabbitMQ, nil)
	other.permit(t, `^celery-hpa\.`, `^celery-hpa\.`, `^(celery-hpa\.|celeryev$)`)
	b.app(t).StartWorker(t, servers.WorkerOptions{Name: "ours"})
	other.app(t).StartWorker(t, servers.WorkerOptions{Name: "theirs"})
	ours, theirs := hearing(t, b.workers(t)), hearing(t, other.workers(t))
	eventually.Holds(t, patience, "both workers", func() bool {
		return ours.has(beat("celery@ours", 0, 0)) && theirs.has(beat("celery@theirs", 0, 0))
	})
	if ours.has(beat("celery@theirs", 0, 0)) || theirs.has(beat("celery@ours", 0, 0)) {
		t.Error("a worker is heard in a virtual host that is not its own")
	}
}

// Where there is no exchange, nobody is speaking, and Listen says that it is listening.
func firstWorker(t *testing.T, b *celeryBroker) {
	e := hearing(t, b.workers(t))
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	eventually.Holds(t, patience, "the worker", func() bool { return e.has(beat("celery@worker", 0, 0)) })
}

func exchangeAgain(t *testing.T, b *celeryBroker) {
	declare := func() {
		check(t, b.worker.ExchangeDeclare(celery.EventExchange, "topic", true, false, false, false, nil))
	}
	speak := func(node string) {
		b.speak(t, amqp.Publishing{ContentType: "application/json", Body: []byte(`{"type": "worker-heartbeat", "hostname": "` + node + `"}`)})
	}
	declare()
	e := hearing(t, b.workers(t))
	speak("celery@before")
	eventually.Holds(t, patience, "the worker", func() bool { return e.has(said("celery@before", monitor.WorkerBeating)) })
	check(t, b.worker.ExchangeDelete(celery.EventExchange, false, false))
	declare()
	eventually.Holds(t, patience, "the worker after that", func() bool {
		speak("celery@after")
		return e.has(said("celery@after", monitor.WorkerBeating))
	})
}

// speak publishes what a worker might.
func (b *celeryBroker) speak(t testing.TB, m amqp.Publishing) {
	t.Helper()
	check(t, b.worker.PublishWithContext(context.Background(), celery.EventExchange, "worker.heartbeat", false, false, m))
}

func noEvents(t *testing.T, b *celeryBroker) {
	check(t, b.worker.ExchangeDeclare(celery.EventExchange, "topic", true, false, false, false, nil))
	e := hearing(t, b.workers(t))
	event := []byte(`{"type": "worker-heartbeat", "hostname": "celery@SECRET", "active": 0}`)
	var compressed bytes.Buffer
	z := zlib.NewWriter(&compressed)
	_, err := z.Write(event)
	check(t, errors.Join(err, z.Close()))
	bad := []amqp.Publishing{
		{ContentType: "application/json", Body: bytes.Repeat(event, 1<<20/len(event))},
		{ContentType: "application/json", Body: append([]byte(`{"type": "worker-heartbeat", "hostname": "celery@SECRET", "x": "`), append(bytes.Repeat([]byte("x"), 1<<20), `"}`...)...)},
		{ContentType: "application/x-python-serialize", ContentEncoding: "binary", Body: []byte("\x80\x04}q\x00X\x04SECRET")},
		{ContentType: "application/x-msgpack", ContentEncoding: "binary", Body: []byte("\x81\xa4typeSECRET")},
		{ContentType: "application/x-msgpack", Body: event},
		// As kombu compresses (kombu/messaging.py, Producer._prepare).
		{ContentType: "application/json", ContentEncoding: "utf-8", Headers: amqp.Table{"compression": "application/x-gzip"}, Body: compressed.Bytes()},
		{ContentType: "application/json", ContentEncoding: "gzip", Body: compressed.Bytes()},
		{ContentType: "application/json", Body: []byte("\x00\xff\xfeSECRET\x80")},
		{ContentType: "application/json", Headers: amqp.Table{"a": amqp.Table{"b": []any{int64(1), nil}}}},
		{Body: event},
		{ContentType: "application/json", Body: []byte(`{"type": "worker-heartbeat", "hostname": "SECRET"}`)},
	}
	for _, m := range bad {
		b.speak(t, m)
	}
	b.speak(t, amqp.Publishing{ContentType: "application/json", Body: bytes.ReplaceAll(event, []byte("SECRET"), []byte("host"))})
	eventually.Holds(t, patience, "the event after them", func() bool { return e.has(said("celery@host", monitor.WorkerBeating)) })
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.errs) != len(bad) || len(e.events) != 1 {
		t.Errorf("%d errors and %d events, want %d and 1: %v", len(e.errs), len(e.events), len(bad), e.errs)
	}
	for _, err := range e.errs {
		if !errors.Is(err, monitor.ErrEvent) || bytes.Contains([]byte(err.Error()), []byte("SECRET")) {
			t.Errorf("an error is %v, want one that wraps ErrEvent and shows nothing of the message", err)
		}
	}
}
