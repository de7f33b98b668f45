package faults_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// rabbit is a RabbitMQ with a user for the program, hunter2, and somebody who
// publishes and takes.
type rabbit struct {
	*servers.RabbitMQ
	worker *amqp.Channel
}

func startRabbit(t *testing.T) *rabbit {
	t.Helper()
	r := &rabbit{RabbitMQ: servers.StartRabbitMQ(t, servers.RabbitMQOptions{})}
	r.SetUser(t, "celery-hpa", "hunter2", "management")
	r.Allow(t, "celery-hpa", "/")
	r.connect(t)
	return r
}

func (r *rabbit) connect(t *testing.T) {
	t.Helper()
	link, err := amqp.Dial(r.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() })
	if r.worker, err = link.Channel(); err != nil {
		t.Fatal(err)
	}
	if err := r.worker.Confirm(false); err != nil {
		t.Fatal(err)
	}
}

// publish sends messages to a queue and returns when the broker has them.
func (r *rabbit) publish(t *testing.T, queue string, n int) {
	t.Helper()
	if _, err := r.worker.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for range n {
		confirm, err := r.worker.PublishWithDeferredConfirmWithContext(t.Context(), "", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
		if err != nil || !confirm.Wait() {
			t.Fatalf("publish to %s: %v", queue, err)
		}
	}
}

// take holds messages of a queue.
func (r *rabbit) take(t *testing.T, queue string, n int) {
	t.Helper()
	for range n {
		if _, taken, err := r.worker.Get(queue, false); err != nil || !taken {
			t.Fatalf("take from %s: %t, %v", queue, taken, err)
		}
	}
}

// run starts a program with the broker as prod.
func (r *rabbit) run(t *testing.T, spec string) *program {
	t.Helper()
	p := run(t, document("default", "prod", fmt.Sprintf("url: {file: url}, rabbitmq: {managementURL: '%s'}, %s", r.ManagementURL(), spec)),
		map[string]string{"url": r.UserURL("celery-hpa", "hunter2", "/")})
	p.hides(t, "hunter2")
	return p
}

// As for Redis: the last counts while they are young, then an error that says
// which broker and why, and at no moment anything else.
func TestRabbitMQThatDoesNotAnswer(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(*servers.RabbitMQ, testing.TB)
		cause      string
	}{
		"stopped": {(*servers.RabbitMQ).Stop, (*servers.RabbitMQ).Start, "is the server running at this address?"},
		"paused":  {(*servers.RabbitMQ).Pause, (*servers.RabbitMQ).Resume, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRabbit(t)
			r.publish(t, "celery", 5)
			r.take(t, "celery", 2)
			p := r.run(t, shortly)
			p.awaitTasks(t, "celery", "5")

			w := p.watchTasks(t, "celery")
			fault.begin(r.RabbitMQ, t)
			p.awaitError(t, "celery", "broker default/prod", "over the maximum age of 2s", r.Address(), fault.cause)
			answers := w.end()
			checkOnly(t, answers, "prod/celery", "5")
			checkAges(t, answers, 2*time.Second)
			checkOrder(t, answers)
			p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 0`)
			p.checkHealth(t, "/readyz", http.StatusOK)

			w = p.watchTasks(t, "celery")
			fault.end(r.RabbitMQ, t)
			p.awaitTasks(t, "celery", "5")
			checkOnly(t, w.end(), "prod/celery", "5")
			p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 1`)
		})
	}
}

// Without the management API, what it alone knows is an error; the rest is not.
func TestRabbitMQWithoutItsManagementAPI(t *testing.T) {
	t.Parallel()
	r := startRabbit(t)
	r.publish(t, "celery", 5)
	r.take(t, "celery", 2)
	p := r.run(t, "queues: [{name: celery}], "+shortly)
	p.awaitTasks(t, "celery", "5")
	w := p.watchTasks(t, "celery")
	r.SetUser(t, "celery-hpa", "hunter2") // without the tag
	p.awaitError(t, "celery", "broker default/prod", "in flight", "needs the tag management")
	checkOnly(t, w.end(), "prod/celery", "5")
	if a := p.of("celery_queue_backlog", "celery")(); !a.is("prod/celery", "3") {
		t.Errorf("the backlog is %s, want 3", a)
	}
	p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 1`)
	p.awaitMetric(t, `celery_hpa_broker_degraded{broker="prod",namespace="default"} 1`)
	p.awaitMetric(t, `celery_queue_backlog{broker="prod",namespace="default",queue="celery"} 3`)
	p.awaitLog(t, "Part of the broker could not be read")
	r.publish(t, "celery", 1)
	await(t, "a fresh backlog", p.of("celery_queue_backlog", "celery"), func(a answer) bool { return a.is("prod/celery", "4") })
	if text := p.metrics().Message; hasSeries(text, "celery_queue_tasks") || hasSeries(text, "celery_queue_in_flight") {
		t.Errorf("/metrics has a number of what is not known:\n%s", text)
	}
	r.SetUser(t, "celery-hpa", "hunter2", "management")
	p.awaitTasks(t, "celery", "6")
	p.awaitMetric(t, `celery_hpa_broker_degraded{broker="prod",namespace="default"} 0`)
	p.awaitLog(t, "The whole broker can be read again")
}

func TestRabbitMQWithoutTheQueue(t *testing.T) {
	t.Parallel()
	r := startRabbit(t)
	r.publish(t, "default", 1)
	p := r.run(t, "queues: [{name: default}, {name: defualt}], "+often)
	p.awaitTasks(t, "default", "1")
	p.awaitError(t, "defualt", `no queue "defualt"`, `virtual host "/"`, "misspelt")
	await(t, "an error of the sum", func() answer { return p.ask("default", "celery_queue_tasks", "") },
		func(a answer) bool { return a.says(503, "misspelt") })
	r.publish(t, "celery_delayed_3", 4)
	p.awaitMetric(t, `celery_hpa_broker_delayed_messages{broker="prod",namespace="default"} 4`)
}

func TestDocumentedUserMayReadRabbitMQ(t *testing.T) {
	t.Parallel()
	r := startRabbit(t)
	r.API(t, http.MethodDelete, "/users/celery-hpa", nil)
	for _, command := range documentedCommands(t, "hunter2") {
		r.Control(t, command...)
	}
	r.publish(t, "celery", 5)
	r.take(t, "celery", 2)
	p := r.run(t, often)
	p.awaitTasks(t, "celery", "5")
	p.awaitMetric(t, `celery_hpa_broker_degraded{broker="prod",namespace="default"} 0`)
}
