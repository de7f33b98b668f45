package rabbitmq_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// paste does what a user does who pastes the command in an error.
func (b *celeryBroker) paste(t testing.TB, err error, command string) {
	t.Helper()
	_, line, found := strings.Cut(err.Error(), "rabbitmqctl "+command+" ")
	if !found {
		t.Fatalf("the error names no %s: %v", command, err)
	}
	words, failure := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\n' `+line).Output()
	if failure != nil {
		t.Fatalf("a shell does not read %q: %v", line, failure)
	}
	t.Logf("rabbitmqctl %s %s", command, line)
	b.Control(t, append([]string{command}, strings.Split(strings.TrimSuffix(string(words), "\n"), "\n")...)...)
}

func namedRights(t *testing.T, other *celeryBroker) {
	b := *other
	b.vhost = `it's "$HOME"`
	b.AddVhost(t, b.vhost)
	defer b.DeleteVhost(t, b.vhost)
	b.Allow(t)
	w := b.workers(t)
	err := listen(t, w).end(t)
	brokertest.CheckText(t, err, "listen to the workers of broker ns/broker", b.Address(), "declare queue", "lacks a permission",
		`'^celery-hpa\.' '^celery-hpa\.' '^(celery-hpa\.|celeryev$)'`)
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	b.paste(t, err, "set_permissions")
	e := hearing(t, w)
	eventually.Holds(t, patience, "the worker", func() bool { return e.has(beat("celery@worker", 0, 0)) })
	_, err = ask(t, w, patience, monitor.MethodStats, "celery@worker")
	brokertest.CheckText(t, err, "ask the workers of broker ns/broker", b.Address(), `publish to exchange "celery.pidbox"`, "lacks a permission",
		`'^celery-hpa\.' '^(celery-hpa\.|celery\.pidbox$)' '^(celery-hpa\.|celeryev$)'`)
	b.paste(t, err, "set_permissions")
	if replies, err := ask(t, w, patience, monitor.MethodStats, "celery@worker"); err != nil || len(replies) != 1 {
		t.Errorf("Ask = %d replies, %v, want one", len(replies), err)
	}
	hearing(t, b.workers(t))
}

// leastRights takes each part of the rights away.
func leastRights(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	const queues, toWrite, toRead = `^celery-hpa\.`, `^(celery-hpa\.|celery\.pidbox$)`, `^(celery-hpa\.|celeryev$)`
	for name, c := range map[string]struct {
		configure, write, read string
		hears, asks            bool
	}{
		"all":                   {queues, toWrite, toRead, true, true},
		"listening alone":       {queues, queues, toRead, true, false},
		"no configure":          {`^$`, toWrite, toRead, false, false},
		"no write on the queue": {queues, `^celery\.pidbox$`, toRead, false, true},
		"no read on the queue":  {queues, toWrite, `^celeryev$`, false, false},
		"no read of events":     {queues, toWrite, queues, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			b.permit(t, c.configure, c.write, c.read)
			w := b.workers(t)
			if c.hears {
				hearing(t, w)
			} else {
				brokertest.CheckText(t, listen(t, w).end(t), "lacks a permission", "set_permissions")
			}
			replies, err := ask(t, w, patience, monitor.MethodStats, "celery@worker")
			if !c.asks {
				brokertest.CheckText(t, err, "lacks a permission", "set_permissions")
			} else if err != nil || len(replies) != 1 {
				t.Errorf("Ask = %d replies, %v, want one", len(replies), err)
			}
		})
	}
}

func topicRights(t *testing.T, b *celeryBroker) {
	b.app(t).StartWorker(t, servers.WorkerOptions{})
	b.API(t, http.MethodPut, "/topic-permissions/"+url.PathEscape(b.vhost)+"/"+driverUser,
		map[string]string{"exchange": celery.EventExchange, "write": "^$", "read": "^$"})
	w := b.workers(t)
	err := listen(t, w).end(t)
	brokertest.CheckText(t, err, "bind queue", "lacks a permission")
	b.paste(t, err, "set_topic_permissions")
	hearing(t, w)
}

// Over TLS, with a certificate instead of a user and a password.
func TestWorkersOverTLS(t *testing.T) {
	b := startSecure(t)
	cfg := b.cfg
	cfg.URL, cfg.LoginMethod = fmt.Sprintf("amqps://%s/%s", b.Address(), url.PathEscape(b.vhost)), "EXTERNAL"
	cfg.CA, cfg.Cert, cfg.Key = pemOf(t, b.Certificates.CA), pemOf(t, b.Certificates.ClientCert), pemOf(t, b.Certificates.ClientKey)
	b.SetUser(t, "client", "") // the common name of the certificate
	b.RabbitMQ.Allow(t, "client", b.vhost)
	w := newWorkers(t, cfg)
	err := listen(t, w).end(t)
	brokertest.CheckText(t, err, "lacks a permission", "refused for user 'client'", "'USER'")
	b.Control(t, "set_permissions", "-p", b.vhost, "client", `^celery-hpa\.`, `^(celery-hpa\.|celery\.pidbox$)`, `^(celery-hpa\.|celeryev$)`)
	hearing(t, w)
	if replies, err := ask(t, w, time.Minute, monitor.MethodStats, "celery@nobody"); err != nil || len(replies) != 0 {
		t.Errorf("Ask = %d replies, %v, want none", len(replies), err)
	}
	cfg.CA = nil
	brokertest.CheckText(t, listen(t, newWorkers(t, cfg)).end(t), "unknown authority", "caFile")
}

func TestNewWorkersRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  rabbitmq.Config
		want string
	}{
		"bad URL":    {rabbitmq.Config{URL: "amqp://u:SECRET@:1"}, "no host"},
		"Redis":      {rabbitmq.Config{URL: "redis://u:SECRET@h"}, "not read by the RabbitMQ driver"},
		"no CA file": {rabbitmq.Config{URL: "amqps://u:SECRET@h?ssl_ca_certs=/nowhere"}, "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rabbitmq.NewWorkers(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("NewWorkers = %v, want an error with %q and no credential", err, c.want)
			}
		})
	}
}
