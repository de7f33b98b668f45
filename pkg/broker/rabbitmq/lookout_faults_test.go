package rabbitmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// fails waits until a line is of no use any more, and returns why.
func fails(t testing.TB, line *rabbitmq.LookoutLine) error {
	t.Helper()
	var failure error
	eventually.Holds(t, patience, "the line to fail", func() bool {
		_, failure = line.Read(t.Context(), []string{"celery"})
		return failure != nil
	})
	brokertest.CheckText(t, failure, "look out for messages of broker ns/broker")
	if _, err := line.Read(t.Context(), []string{"celery"}); err == nil {
		t.Error("a line that has failed is of use again")
	}
	if text := failure.Error(); strings.Contains(text, brokertest.Secret) {
		t.Errorf("the error tells the password: %s", text)
	}
	return failure
}

// ours are the connections of lookouts, once the management API shows them.
func (b *celeryBroker) ours(t testing.TB) []connection {
	t.Helper()
	var ours []connection
	eventually.Holds(t, patience, "the connection to be shown, some seconds late", func() bool {
		ours = ours[:0]
		for _, c := range b.connections(t) {
			if c.User == driverUser {
				ours = append(ours, c)
			}
		}
		return len(ours) > 0 && ours[0].Properties.Name != ""
	})
	return ours
}

func lookoutConnection(t *testing.T, b *celeryBroker) {
	line := openLine(t, b.lookout(t))
	reads(t, line, []string{"missing"}, unknown)
	ours := b.ours(t)
	if len(ours) != 1 || ours[0].Properties.Name != "celery-hpa lookout" || ours[0].Timeout != 10 { // the heartbeat
		t.Errorf("the connections are %+v, want one", ours)
	}
	if err := line.Close(); err != nil {
		t.Error(err)
	}
	brokertest.CheckText(t, fails(t, line), b.Address())
}

// channels is how many of them drivers have open on the broker.
func (b *celeryBroker) channels(t testing.TB) int {
	t.Helper()
	var all []struct{ User string }
	if err := json.Unmarshal(b.API(t, http.MethodGet, "/vhosts/"+url.PathEscape(b.vhost)+"/channels", nil), &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range all {
		if c.User == driverUser {
			n++
		}
	}
	return n
}

func fewChannels(t *testing.T, b *celeryBroker) {
	queues, counts := b.half(t, 200)
	line := openLine(t, b.lookout(t))
	for range 10 {
		reads(t, line, queues, counts...)
	}
	eventually.Holds(t, patience, "the channels to be shown, some seconds late", func() bool {
		n := b.channels(t)
		if n > 4 {
			t.Fatalf("there are %d channels, want no more than 4", n)
		}
		return n > 0
	})
}

// A broker short of memory blocks publishers, not who reads.
func lookoutOutOfMemory(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	before := openLine(t, b.lookout(t))
	becomes(t, before, "celery", 1)
	b.Control(t, "set_vm_memory_high_watermark", "absolute", "1MB")
	defer b.Control(t, "set_vm_memory_high_watermark", "0.9")
	if alarms := b.Control(t, "eval", "rabbit_alarm:get_alarms()."); !strings.Contains(alarms, "memory") {
		t.Fatalf("the broker has the alarms %s, want one of its memory", alarms)
	}
	reads(t, before, []string{"celery"}, 1)
	reads(t, openLine(t, b.lookout(t)), []string{"celery"}, 1)
}

func closedByForce(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	l := b.lookout(t)
	line := openLine(t, l)
	becomes(t, line, "celery", 1)
	b.API(t, http.MethodDelete, "/connections/"+url.PathEscape(b.ours(t)[0].Name), nil)
	brokertest.CheckText(t, fails(t, line), b.Address(), "CONNECTION_FORCED", "somebody closed the connection")
	reads(t, openLine(t, l), []string{"celery"}, 1)
}

func deletedVhost(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	l := b.lookout(t)
	line := openLine(t, l)
	becomes(t, line, "celery", 1)
	b.DeleteVhost(t, b.vhost)
	brokertest.CheckText(t, fails(t, line), b.Address(), "vhost")
	_, err := l.Open(t.Context())
	brokertest.CheckText(t, err, "look out for messages", fmt.Sprintf("vhost %q", b.vhost), "not found", "set_permissions")
	b.AddVhost(t, b.vhost)
	b.Allow(t)
	reads(t, openLine(t, l), []string{"celery"}, unknown)
}

func lookoutRestarted(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	l := b.lookout(t)
	line := openLine(t, l)
	becomes(t, line, "celery", 1)
	b.Stop(t)
	brokertest.CheckText(t, fails(t, line), b.Address())
	_, err := l.Open(t.Context())
	brokertest.CheckText(t, err, "look out for messages of broker ns/broker", b.Address(), "connection refused", "is the server running")
	b.Start(t)
	becomes(t, openLine(t, l), "celery", 1)
}

func lookoutSilent(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	patient := b.lookout(t)
	b.cfg.Timeout = brokertest.Timeout
	hasty := b.lookout(t)
	line, other := openLine(t, patient), openLine(t, hasty)
	becomes(t, line, "celery", 1)
	b.Pause(t)
	resume := sync.OnceFunc(func() { b.Resume(t) })
	defer resume() // what comes after a failure must not wait for it
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := line.Read(ctx, []string{"celery"})
	brokertest.CheckText(t, err, "look out for messages of broker ns/broker", b.Address(), "no answer in time")
	brokertest.CheckText(t, fails(t, other), "no answer in time")
	_, err = hasty.Open(t.Context())
	brokertest.CheckText(t, err, b.Address(), "no answer in time")
	resume()
	becomes(t, openLine(t, patient), "celery", 1)
}

func lookoutFailover(t *testing.T, b *celeryBroker) {
	b.Publish(t, "celery", brokertest.Message{})
	good := b.UserURL(driverUser, brokertest.Secret, b.vhost)
	for _, url := range []string{"amqp://127.0.0.1:1;" + good, good + ";amqp://127.0.0.1:1", good + "?login_method=AMQPLAIN"} {
		cfg := b.cfg
		cfg.URL = url
		l := newLookout(t, cfg)
		for range 2 {
			becomes(t, openLine(t, l), "celery", 1)
		}
	}
	cfg := b.cfg
	cfg.URL = "amqp://127.0.0.1:1;amqp://127.0.0.1:2"
	_, err := newLookout(t, cfg).Open(t.Context())
	brokertest.CheckText(t, err, "127.0.0.1:1", "127.0.0.1:2", "connection refused")
}

func lookoutRefused(t *testing.T, b *celeryBroker) {
	cfg := b.cfg
	cfg.URL = b.UserURL(driverUser, "SECRET", b.vhost)
	_, err := newLookout(t, cfg).Open(t.Context())
	brokertest.CheckText(t, err, "look out for messages of broker ns/broker", "password of the broker URL is wrong")
	if strings.Contains(err.Error(), "SECRET") {
		t.Errorf("the error tells the password: %v", err)
	}
	b.API(t, http.MethodPut, "/vhost-limits/"+url.PathEscape(b.vhost)+"/max-connections", map[string]any{"value": 1})
	_, err = b.lookout(t).Open(t.Context())
	brokertest.CheckText(t, err, "limit", "raise the limit")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.lookout(t).Open(ctx)
	brokertest.CheckText(t, err, "canceled")
}

// Over TLS, with a certificate instead of a user and a password.
func TestLookoutOverTLS(t *testing.T) {
	b := startSecure(t)
	cfg := b.cfg
	cfg.URL, cfg.LoginMethod = fmt.Sprintf("amqps://%s/%s", b.Address(), url.PathEscape(b.vhost)), "EXTERNAL"
	cfg.CA, cfg.Cert, cfg.Key = pemOf(t, b.Certificates.CA), pemOf(t, b.Certificates.ClientCert), pemOf(t, b.Certificates.ClientKey)
	cfg.Timeout = patience
	b.SetUser(t, "client", "") // the common name of the certificate
	b.RabbitMQ.Allow(t, "client", b.vhost)
	queues, counts := b.half(t, 200)
	line := openLine(t, newLookout(t, cfg))
	for range 5 {
		reads(t, line, queues, counts...)
	}
	cfg.CA = nil
	_, err := newLookout(t, cfg).Open(t.Context())
	brokertest.CheckText(t, err, "unknown authority", "caFile")
}
