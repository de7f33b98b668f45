package rabbitmq_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// driverUser is the user of the drivers, with the least permissions.
const driverUser = "driver"

// tick is how often the quorum queues of these tests tell their numbers: more
// often than RabbitMQ's own 5 s, for which a test would have to wait.
const tick = 300 * time.Millisecond

// celeryBroker does to a virtual host of its own on a real RabbitMQ what Celery
// does, with the client that publishers and workers have.
type celeryBroker struct {
	*servers.RabbitMQ
	vhost     string
	arguments amqp.Table // of every queue
	cfg       rabbitmq.Config
	traits    brokertest.Traits

	link   *amqp.Connection
	worker *amqp.Channel
}

// delivery is a message that the worker's channel has taken.
type delivery uint64

// startCelery makes an empty virtual host on a server, with the drivers' user.
func startCelery(t testing.TB, server *servers.RabbitMQ, arguments amqp.Table) *celeryBroker {
	t.Helper()
	b := &celeryBroker{
		RabbitMQ: server, vhost: fmt.Sprintf("tests/%d", time.Now().UnixNano()), arguments: arguments,
		traits: brokertest.Traits{Settles: true, HidesETA: true, SeveralTimes: true, NoLineBreaks: true},
		cfg: rabbitmq.Config{
			Ref: queue.BrokerRef{Namespace: "ns", Name: "broker"}, Timeout: brokertest.Timeout, ManagementURL: server.ManagementURL(),
		},
	}
	b.AddVhost(t, b.vhost)
	b.SetUser(t, driverUser, brokertest.Secret, "management")
	b.RabbitMQ.Allow(t, driverUser, b.vhost)
	t.Cleanup(func() { b.DeleteVhost(t, b.vhost) })
	b.connect(t)
	t.Cleanup(func() { _ = b.link.Close() })
	return b
}

func (b *celeryBroker) connect(t testing.TB) {
	t.Helper()
	var secure *tls.Config
	if c := b.Certificates; c != nil {
		var err error
		secure, err = transport.PEM{CA: pemOf(t, c.CA), Cert: pemOf(t, c.ClientCert), Key: pemOf(t, c.ClientKey)}.TLSConfig(celery.Endpoint{Host: "127.0.0.1"})
		check(t, err)
	}
	var err error
	if b.link, err = amqp.DialTLS(b.URL(b.vhost), secure); err != nil {
		t.Fatalf("connect to RabbitMQ as Celery: %v", err)
	}
	b.worker = b.channel(t)
}

func (b *celeryBroker) channel(t testing.TB) *amqp.Channel {
	t.Helper()
	channel, err := b.link.Channel()
	check(t, err)
	return channel
}

// check fails the test at an error of what the test itself does to the broker.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("talk to RabbitMQ as Celery: %v", err)
	}
}

func (b *celeryBroker) Traits() brokertest.Traits { return b.traits }

func (b *celeryBroker) NewDriver(t testing.TB, access brokertest.Access, queues ...string) brokertest.Driver {
	t.Helper()
	password := brokertest.Secret
	if access == brokertest.WrongPassword {
		password += "x"
	}
	cfg := b.cfg
	cfg.URL, cfg.Queues = b.UserURL(driverUser, password, b.vhost), queues
	return newDriver(t, cfg)
}

func newDriver(t testing.TB, cfg rabbitmq.Config) *rabbitmq.Driver {
	t.Helper()
	d, err := rabbitmq.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func (b *celeryBroker) Declare(t testing.TB, name string) {
	t.Helper()
	_, err := b.worker.QueueDeclare(name, true, false, false, false, b.arguments)
	check(t, err)
}

// Publish declares the queue, as Celery's publisher does, and waits until the
// broker has all messages.
func (b *celeryBroker) Publish(t testing.TB, name string, messages ...brokertest.Message) {
	t.Helper()
	b.Declare(t, name)
	channel := b.channel(t)
	defer channel.Close()
	check(t, channel.Confirm(false))
	var confirms []*amqp.DeferredConfirmation
	for _, m := range messages {
		headers := amqp.Table{"task": "app.work", "id": "an id", "eta": nil}
		if !m.ETA.IsZero() {
			headers["eta"] = m.ETA.UTC().Format(time.RFC3339Nano)
		}
		confirm, err := channel.PublishWithDeferredConfirmWithContext(context.Background(), "", name, false, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Priority: uint8(m.Priority), ContentType: "application/json",
			Headers: headers, Body: []byte(`[["argument"], {}, {"callbacks": null}]`),
		})
		check(t, err)
		confirms = append(confirms, confirm)
	}
	for _, c := range confirms {
		c.Wait()
	}
}

func (b *celeryBroker) Take(t testing.TB, name string, n int) []brokertest.Delivery {
	t.Helper()
	var taken []brokertest.Delivery
	for range n {
		message, ok, err := b.worker.Get(name, false)
		check(t, err)
		if !ok {
			t.Fatalf("took %d messages from %q, want %d", len(taken), name, n)
		}
		taken = append(taken, delivery(message.DeliveryTag))
	}
	return taken
}

func (b *celeryBroker) Acknowledge(t testing.TB, deliveries ...brokertest.Delivery) {
	t.Helper()
	for _, d := range deliveries {
		check(t, b.worker.Ack(uint64(d.(delivery)), false))
	}
}

func (b *celeryBroker) Return(t testing.TB, deliveries ...brokertest.Delivery) {
	t.Helper()
	for _, d := range deliveries {
		check(t, b.worker.Nack(uint64(d.(delivery)), false, true))
	}
}

func (b *celeryBroker) Purge(t testing.TB, name string) {
	t.Helper()
	_, err := b.worker.QueuePurge(name, false)
	check(t, err)
}

func (b *celeryBroker) Delete(t testing.TB, name string) {
	t.Helper()
	_, err := b.worker.QueueDelete(name, false, false, false)
	check(t, err)
}

func (b *celeryBroker) Start(t testing.TB) {
	t.Helper()
	b.RabbitMQ.Start(t)
	b.connect(t)
}

func (b *celeryBroker) Wipe(t testing.TB) {
	t.Helper()
	b.DeleteVhost(t, b.vhost)
	b.AddVhost(t, b.vhost)
	b.Allow(t)
}

func (b *celeryBroker) Forbid(t testing.TB) { b.RabbitMQ.Forbid(t, driverUser, b.vhost) }
func (b *celeryBroker) Allow(t testing.TB)  { b.RabbitMQ.Allow(t, driverUser, b.vhost) }

// connections are what the management API shows of the drivers' connections to
// this virtual host.
func (b *celeryBroker) connections(t testing.TB) []connection {
	t.Helper()
	var all []connection
	text := b.API(t, http.MethodGet, "/vhosts/"+url.PathEscape(b.vhost)+"/connections", nil)
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

type connection struct {
	Name       string
	User       string
	Timeout    int
	Properties struct {
		Name string `json:"connection_name"`
	} `json:"client_properties"`
}
