package servers_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// dial opens a connection, as drivers do. It is closed when the test ends.
func dial(t *testing.T, url string, config amqp.Config) (*amqp.Connection, error) {
	t.Helper()
	connection, err := amqp.DialConfig(url, config)
	if err == nil {
		t.Cleanup(func() { _ = connection.Close() })
	}
	return connection, err
}

func openChannel(t *testing.T, server *servers.RabbitMQ) *amqp.Channel {
	t.Helper()
	connection, err := dial(t, server.URL("/"), amqp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	channel, err := connection.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

// keep puts a message into a queue, both for good.
func keep(t *testing.T, channel *amqp.Channel, queue string) {
	t.Helper()
	if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	sent, err := channel.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
	if err != nil || !sent.Wait() {
		t.Fatalf("the server does not take a message: %v", err)
	}
}

func TestRabbitMQKeepsItsData(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
	keep(t, openChannel(t, server), "queue")
	address := server.Address()
	server.Stop(t)
	if _, err := dial(t, server.URL("/"), amqp.Config{}); err == nil {
		t.Error("a stopped server answers")
	}
	server.Start(t)
	queue, err := openChannel(t, server).QueueDeclarePassive("queue", true, false, false, false, nil)
	if err != nil || queue.Messages != 1 || server.Address() != address {
		t.Errorf("after a stop the queue has %d messages (%v) at %s, want 1 at %s", queue.Messages, err, server.Address(), address)
	}
}

func TestPausedRabbitMQIsSilentUntilResumed(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
	hasty := amqp.Config{Dial: amqp.DefaultDial(200 * time.Millisecond)}
	server.Pause(t)
	if _, err := dial(t, server.URL("/"), hasty); err == nil {
		t.Error("a paused server answers")
	}
	server.Resume(t)
	if _, err := dial(t, server.URL("/"), amqp.Config{}); err != nil {
		t.Errorf("a resumed server does not answer: %v", err)
	}
}

func TestRabbitMQLetsInWhomItShould(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
	url := server.UserURL("read er", "p@ss/word", "a/b")
	refuses := func(what string) {
		t.Helper()
		if _, err := dial(t, url, amqp.Config{}); err == nil {
			t.Errorf("the server takes %s", what)
		}
	}
	server.AddVhost(t, "a/b")
	refuses("an unknown user")
	server.SetUser(t, "read er", "p@ss/word", "management")
	refuses("a user without a permission")
	server.Allow(t, "read er", "a/b")
	if _, err := dial(t, url, amqp.Config{}); err != nil {
		t.Errorf("the server does not take its user: %v", err)
	}
	server.Forbid(t, "read er", "a/b")
	refuses("a user whose permission was taken away")
	server.Allow(t, "read er", "a/b")
	server.DeleteVhost(t, "a/b")
	refuses("a user in a vhost that is gone")
}

func TestRabbitMQManagement(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{
		ManagementPrefix: "/rabbit", QuorumTick: 200 * time.Millisecond, Directives: []string{"channel_max = 77"},
	})
	if tick := server.Control(t, "eval", "application:get_env(rabbit, quorum_tick_interval)."); !strings.Contains(tick, "{ok,200}") {
		t.Errorf("the tick of quorum queues is %s, want 200", tick)
	}
	if limit := server.Control(t, "eval", "application:get_env(rabbit, channel_max)."); !strings.Contains(limit, "{ok,77}") {
		t.Errorf("the directive made the limit of channels %s, want 77", limit)
	}
	server.DisableManagement(t)
	if _, err := dial(t, server.URL("/"), amqp.Config{}); err != nil {
		t.Errorf("without its management API the server does not answer: %v", err)
	}
	server.EnableManagement(t)
	server.API(t, http.MethodGet, "/queues/%2F", nil)
}

func TestRabbitMQCertificates(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{TLS: true, ClientCertificates: true})
	server.SetUser(t, "client", "")
	server.Allow(t, "client", "/")
	authority, err := os.ReadFile(server.Certificates.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(server.Certificates.ClientCert, server.Certificates.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	secure := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	secure.RootCAs.AppendCertsFromPEM(authority)
	if _, err := dial(t, server.URL("/"), amqp.Config{TLSClientConfig: secure.Clone()}); err == nil {
		t.Error("the server takes clients without a certificate")
	}
	secure.Certificates = []tls.Certificate{pair}
	for _, login := range []amqp.Authentication{&amqp.PlainAuth{Username: "guest", Password: "guest"}, &amqp.ExternalAuth{}} {
		config := amqp.Config{TLSClientConfig: secure, SASL: []amqp.Authentication{login}}
		if _, err := dial(t, server.URL("/"), config); err != nil {
			t.Errorf("the server does not take its client's certificate with %s: %v", login.Mechanism(), err)
		}
	}
}

func TestRabbitMQEndsWithItsTest(t *testing.T) {
	var pid string
	var left []string
	t.Run("server", func(t *testing.T) {
		pid = strconv.Itoa(servers.StartRabbitMQ(t, servers.RabbitMQOptions{}).PID())
		left = descendantsOf(t, os.Getpid())
	})
	if !slices.Contains(left, pid) || len(left) < 4 {
		t.Errorf("server %s runs as the processes %v, want it with its port mapper and helpers", pid, left)
	}
	eventually.Holds(t, patience, "the end of the server's processes", func() bool { return !slices.ContainsFunc(left, isRunning) })
}

func TestWorkerFinishesWhatWasPublishedToRabbitMQ(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
	quorum := servers.CeleryQueue{
		Name: "quorum", Exchange: "quorum", ExchangeType: "topic", Arguments: map[string]any{"x-queue-type": "quorum"},
	}
	ranked := servers.CeleryQueue{Name: "ranked", Arguments: map[string]any{"x-max-priority": 9}}
	for name, test := range map[string]struct {
		queue   servers.CeleryQueue
		lateAck bool
	}{
		"early": {queue: ranked}, "late": {queue: ranked, lateAck: true}, "quorum": {queue: quorum, lateAck: true},
	} {
		t.Run(name, func(t *testing.T) {
			server.AddVhost(t, name)
			app := servers.NewCelery(t, servers.CeleryOptions{
				BrokerURL: server.URL(name), Queues: []servers.CeleryQueue{test.queue},
			})
			// Only a worker declares where tasks of quorum queues wait for their time.
			app.StartWorker(t, servers.WorkerOptions{LateAck: test.lateAck, Prefetch: 1})
			awaitAll(t, app, publishAll(t, app, test.queue.Name))
		})
	}
}
