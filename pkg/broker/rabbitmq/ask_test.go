package rabbitmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// answerTime is how long is waited for answers where not all will come.
const answerTime = 5 * time.Second

// answersOf asks workers that are to answer, all of them before the time is over.
func answersOf(t testing.TB, w interface {
	Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error)
}, m monitor.Method, nodes ...string,
) map[string]monitor.ControlReply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	replies, err := w.Ask(ctx, m, nodes)
	if err != nil || len(replies) != len(nodes) || ctx.Err() != nil {
		t.Fatalf("%s: %d replies of %v, %v", m, len(replies), nodes, err)
	}
	byNode := map[string]monitor.ControlReply{}
	for _, r := range replies {
		byNode[r.Node] = r
	}
	return byNode
}

// twoWorkers serve the queues celery and mail, and other.
func (b *celeryBroker) twoWorkers(t *testing.T) (app *servers.Celery, one *servers.Worker) {
	t.Helper()
	app = b.app(t)
	one = app.StartWorker(t, servers.WorkerOptions{Name: "one", Concurrency: 3, Queues: []string{"celery", "mail"}})
	app.StartWorker(t, servers.WorkerOptions{Name: "two", Queues: []string{"other"}})
	return app, one
}

func answers(t *testing.T, b *celeryBroker) {
	app, _ := b.twoWorkers(t)
	nodes := []string{"celery@one", "celery@two"}
	w := b.workers(t)
	hearing(t, w)
	ids := app.Publish(t, servers.CeleryTask{N: 2, Gate: "gate"})
	eventually.Holds(t, patience, "the tasks to execute", func() bool { return len(app.Record(t).Started) == 2 })

	active, err := answersOf(t, w, monitor.MethodActive, nodes...)["celery@one"].Active()
	want := []monitor.ActiveTask{{ID: ids[0], RoutingKey: "celery", Acknowledged: true}, {ID: ids[1], RoutingKey: "celery", Acknowledged: true}}
	byID := cmpopts.SortSlices(func(x, y monitor.ActiveTask) bool { return x.ID < y.ID })
	if diff := cmp.Diff(want, active, byID); err != nil || diff != "" {
		t.Errorf("the tasks that execute (%v):\n%s", err, diff)
	}
	served, err := answersOf(t, w, monitor.MethodActiveQueues, nodes...)["celery@one"].Queues()
	if diff := cmp.Diff([]string{"celery", "mail"}, namesOf(served)); err != nil || diff != "" {
		t.Errorf("the queues that are served (%v):\n%s", err, diff)
	}
	checkSlots(t, answersOf(t, w, monitor.MethodStats, nodes...)["celery@one"], 3)
	app.OpenGate(t, "gate")
}

func checkSlots(t *testing.T, r monitor.ControlReply, want int64) {
	t.Helper()
	if slots, err := r.Slots(); err != nil || slots != want {
		t.Errorf("the worker has %d slots (%v), want %d", slots, err, want)
	}
}

func frozen(t *testing.T, b *celeryBroker) {
	_, one := b.twoWorkers(t)
	w := b.workers(t)
	answersOf(t, w, monitor.MethodStats, "celery@one", "celery@two")
	one.Signal(t, syscall.SIGSTOP)
	defer one.Signal(t, syscall.SIGCONT) // its pool may have to be killed
	replies, err := ask(t, w, answerTime, monitor.MethodActiveQueues, "celery@one", "celery@two", "celery@nobody")
	if err != nil || len(replies) != 1 || replies[0].Node != "celery@two" {
		t.Errorf("Ask = %+v, %v, want the answer of the worker that is not frozen", replies, err)
	}
	one.Signal(t, syscall.SIGCONT)
	// What it answers late is not taken for an answer to another question.
	for range 3 {
		checkSlots(t, answersOf(t, w, monitor.MethodStats, "celery@one", "celery@two")["celery@one"], 3)
	}
}

func nobodyAsked(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	if replies, err := b.workers(t).Ask(t.Context(), monitor.MethodStats, nil); err != nil || replies != nil {
		t.Errorf("Ask of nobody = %+v, %v, want nothing", replies, err)
	}
}

func namesOf(served []monitor.ServedQueue) []string {
	var names []string
	for _, q := range served {
		names = append(names, q.Name)
	}
	slices.Sort(names)
	return names
}

// impostor receives questions as a worker does.
func (b *celeryBroker) impostor(t testing.TB) <-chan amqp.Delivery {
	t.Helper()
	check(t, b.worker.ExchangeDeclare(celery.ControlExchange, "fanout", false, false, false, false, nil))
	_, err := b.worker.QueueDeclare("celery@one.celery.pidbox", false, true, true, false, nil)
	check(t, err)
	check(t, b.worker.QueueBind("celery@one.celery.pidbox", "", celery.ControlExchange, false, nil))
	questions, err := b.worker.Consume("celery@one.celery.pidbox", "", true, true, false, false, nil)
	check(t, err)
	return questions
}

// asked is the part of a question that tells where to send replies.
type asked struct {
	Destination []string
	Ticket      string
	ReplyTo     struct {
		Exchange   string
		RoutingKey string `json:"routing_key"`
	} `json:"reply_to"`
}

func decodeQuestion(t testing.TB, question amqp.Delivery) asked {
	t.Helper()
	var to asked
	if err := json.Unmarshal(question.Body, &to); err != nil {
		t.Fatal(err)
	}
	return to
}

// reply sends a reply as a worker does.
func (b *celeryBroker) reply(t testing.TB, to asked, ticket, body string) {
	t.Helper()
	check(t, b.worker.PublishWithContext(context.Background(), to.ReplyTo.Exchange, to.ReplyTo.RoutingKey, false, false, amqp.Publishing{
		ContentType: "application/json", ContentEncoding: "utf-8", Headers: amqp.Table{"ticket": ticket, "clock": int64(7)}, Body: []byte(body),
	}))
}

// outcome is what Ask returned.
type outcome struct {
	replies []monitor.ControlReply
	err     error
}

// begin asks in the background.
func (b *celeryBroker) begin(t testing.TB, within time.Duration, nodes ...string) <-chan outcome {
	t.Helper()
	w, done := b.workers(t), make(chan outcome, 1)
	go func() {
		replies, err := ask(t, w, within, monitor.MethodStats, nodes...)
		done <- outcome{replies, err}
	}()
	return done
}

func question(t *testing.T, b *celeryBroker) {
	questions := b.impostor(t)
	done := b.begin(t, patience, "celery@one")
	q := <-questions
	if q.ContentType != "application/json" || q.ContentEncoding != "utf-8" {
		t.Errorf("the question is %s in %s", q.ContentType, q.ContentEncoding)
	}
	if ttl, err := strconv.Atoi(q.Expiration); err != nil || ttl <= 0 || ttl > int(patience.Milliseconds()) {
		t.Errorf("the question expires after %q ms", q.Expiration)
	}
	if _, ok := q.Headers["expires"].(float64); !ok || q.Headers["clock"] != int64(1) {
		t.Errorf("the question has the headers %v", q.Headers)
	}
	to := decodeQuestion(t, q)
	if !slices.Equal(to.Destination, []string{"celery@one"}) || to.ReplyTo.Exchange != "" {
		t.Errorf("the question is %+v", to)
	}
	b.reply(t, to, to.Ticket, `{"celery@one": {}}`)
	if o := <-done; o.err != nil || len(o.replies) != 1 {
		t.Errorf("Ask = %+v, want one reply", o)
	}
}

func strayReplies(t *testing.T, b *celeryBroker) {
	questions := b.impostor(t)
	done := b.begin(t, patience, "celery@one", "celery@two", "celery@two")
	to := decodeQuestion(t, <-questions)
	for _, body := range []string{`{"celery@three": {}}`, `SECRET`, ``, `{"celery@one": {}, "celery@two": {}}`} {
		b.reply(t, to, to.Ticket, body)
	}
	b.reply(t, to, "another", `{"celery@two": {"pool": {"max-concurrency": 3}}}`)
	b.reply(t, to, to.Ticket, `{"celery@one": {"pool": {"max-concurrency": 1}}}`)
	b.reply(t, to, to.Ticket, `{"celery@one": {"pool": {"max-concurrency": 2}}}`)
	b.reply(t, to, to.Ticket, `{"celery@two": {"pool": {"max-concurrency": 4}}}`)
	o := <-done
	if o.err != nil || len(o.replies) != 2 {
		t.Fatalf("Ask = %+v, want two replies", o)
	}
	checkSlots(t, o.replies[0], 1)
	checkSlots(t, o.replies[1], 4)
}

// Somebody who floods the queue of replies does not keep Ask from returning.
func manyStrayReplies(t *testing.T, b *celeryBroker) {
	questions := b.impostor(t)
	done := b.begin(t, patience, "celery@one")
	to := decodeQuestion(t, <-questions)
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	for i := 0; ; i++ {
		select {
		case o := <-done:
			if o.err != nil || len(o.replies) != 0 {
				t.Errorf("Ask = %+v, want no reply", o)
			}
			return
		case <-ctx.Done():
			t.Fatal("Ask goes on reading what are no replies")
		default:
			b.reply(t, to, fmt.Sprint("another", i), `{"celery@one": {}}`)
		}
	}
}

func noWorker(t *testing.T, b *celeryBroker) {
	worker := b.app(t).StartWorker(t, servers.WorkerOptions{})
	w := b.workers(t)
	answersOf(t, w, monitor.MethodStats, "celery@worker")
	worker.Kill()
	if replies, err := ask(t, w, answerTime, monitor.MethodStats, "celery@worker"); err != nil || len(replies) != 0 {
		t.Errorf("Ask = %+v, %v, want nothing", replies, err)
	}
}

func noWorkerEver(t *testing.T, b *celeryBroker) {
	w := b.workers(t)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if replies, err := w.Ask(ctx, monitor.MethodStats, []string{"celery@worker"}); err != nil || len(replies) != 0 || ctx.Err() != nil {
			t.Errorf("Ask = %+v, %v, want nothing, and at once", replies, err)
		}
		cancel()
	}
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	answersOf(t, w, monitor.MethodStats, "celery@worker")
}

// A broker short of memory reads nothing from those who publish. The connection of the
// question is given up, and its queue with it.
func noMemory(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	w := b.workers(t)
	answersOf(t, w, monitor.MethodStats, "celery@worker")
	b.Control(t, "set_vm_memory_high_watermark", "absolute", "1MB")
	defer b.Control(t, "set_vm_memory_high_watermark", "0.9")
	eventually.Holds(t, patience, "a question not to be taken", func() bool {
		_, err := ask(t, w, time.Second, monitor.MethodStats, "celery@worker")
		if err != nil {
			brokertest.CheckText(t, err, "ask the workers of broker ns/broker", "short of memory")
		}
		return err != nil
	})
	b.awaitNoneOfOurs(t)
	hearing(t, w) // who listens does not publish
	b.Control(t, "set_vm_memory_high_watermark", "0.9")
	answersOf(t, w, monitor.MethodStats, "celery@worker")
}
