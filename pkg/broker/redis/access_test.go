package redis_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// oneWaiting makes a driver for a server on which one message waits.
func oneWaiting(t *testing.T, server *servers.Redis, cfg redis.Config) brokertest.Driver {
	t.Helper()
	broker := newKombu(server, redis.Config{})
	broker.Purge(t, "celery")
	broker.Publish(t, "celery", brokertest.Message{})
	cfg.Ref, cfg.Timeout, cfg.Queues = broker.cfg.Ref, brokertest.Timeout, []string{"celery"}
	return newDriver(t, cfg)
}

var oneBacklog = map[string]brokertest.Counts{"celery": {Backlog: 1}}

func TestLogsInWithPasswordAlone(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss"})
	brokertest.ExpectEventually(t, oneWaiting(t, server, redis.Config{URL: server.URL(0)}), oneBacklog)
	brokertest.ExpectError(t, oneWaiting(t, server, redis.Config{URL: "redis://" + server.Address()}), "NOAUTH", "put it into the broker URL")
}

func TestReadsTheDatabaseOfTheURL(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	brokertest.ExpectEventually(t, oneWaiting(t, server, redis.Config{URL: server.URL(1)}), map[string]brokertest.Counts{"celery": {}})
	brokertest.ExpectError(t, oneWaiting(t, server, redis.Config{URL: server.URL(99)}), "fewer databases")
}

func TestReadsUnixSocket(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Password: "pw"})
	d := oneWaiting(t, server, redis.Config{URL: "redis+socket://:pw@" + server.SocketPath() + "?virtual_host=0"})
	brokertest.ExpectEventually(t, d, oneBacklog)
	server.Stop(t)
	brokertest.ExpectError(t, d, server.SocketPath())
}

func TestTLS(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{TLS: true})
	ca := server.Certificates.CA
	// The whole of 127.0.0.0/8 is loopback, and the certificate names 127.0.0.1
	// alone.
	otherName := strings.Replace(server.URL(0), "127.0.0.1", "127.0.0.2", 1)
	trusted := map[string]redis.Config{
		"authority of the configuration":       {URL: server.URL(0), CA: pemOf(t, ca)},
		"authority of the URL":                 {URL: server.URL(0) + "?ssl_ca_certs=" + ca},
		"files secure redis:// too":            {URL: strings.Replace(server.URL(0), "rediss", "redis", 1), CA: pemOf(t, ca)},
		"no verification, as the URL wants it": {URL: server.URL(0) + "?ssl_cert_reqs=none"},
		"another name, as the URL allows it":   {URL: otherName + "?ssl_check_hostname=false", CA: pemOf(t, ca)},
	}
	for name, cfg := range trusted {
		t.Run(name, func(t *testing.T) {
			brokertest.ExpectEventually(t, oneWaiting(t, server, cfg), oneBacklog)
		})
	}
	refused := map[string]struct {
		cfg  redis.Config
		want string
	}{
		"unknown authority":           {redis.Config{URL: server.URL(0)}, "set caFile"},
		"plain to a port of TLS":      {redis.Config{URL: "redis://" + server.Address()}, "does it want TLS"},
		"certificate of another name": {redis.Config{URL: otherName, CA: pemOf(t, ca)}, "for another name"},
		"unknown authority, any name": {redis.Config{URL: server.URL(0) + "?ssl_check_hostname=false"}, "set caFile"},
	}
	for name, tc := range refused {
		t.Run(name, func(t *testing.T) {
			brokertest.ExpectError(t, oneWaiting(t, server, tc.cfg), tc.want)
		})
	}
}

func TestTLSToPlainPort(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	brokertest.ExpectError(t, oneWaiting(t, server, redis.Config{URL: "rediss://" + server.Address()}), "no answer in time", "TLS")
}

func TestClientCertificate(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{TLS: true, ClientCertificates: true})
	certificates := server.Certificates
	cfg := redis.Config{URL: server.URL(0), CA: pemOf(t, certificates.CA), Cert: pemOf(t, certificates.ClientCert), Key: pemOf(t, certificates.ClientKey)}
	brokertest.ExpectEventually(t, oneWaiting(t, server, cfg), oneBacklog)
	cfg.Cert, cfg.Key = nil, nil
	brokertest.ExpectError(t, oneWaiting(t, server, cfg), "client certificate")
}

func TestSentinel(t *testing.T) {
	primary := servers.StartRedis(t, servers.RedisOptions{Password: "pw", Directives: []string{"masterauth pw", "repl-diskless-sync-delay 0"}})
	replica := servers.StartRedis(t, servers.RedisOptions{Password: "pw", Directives: []string{
		"masterauth pw", "replicaof " + strings.Replace(primary.Address(), ":", " ", 1),
	}})
	sentinel := servers.StartSentinel(t, primary, servers.SentinelOptions{MasterName: "main", Password: "sentinelpw"})
	cfg := redis.Config{
		URL:        fmt.Sprintf("sentinel://:pw@127.0.0.1:1/0;sentinel://%s", sentinel.Address()),
		MasterName: "main", SentinelPassword: "sentinelpw",
	}
	d := oneWaiting(t, primary, cfg)
	brokertest.ExpectEventually(t, d, oneBacklog)
	synced := newKombu(replica, redis.Config{}).cfg
	synced.URL, synced.Queues = replica.URL(0), []string{"celery"}
	brokertest.ExpectEventually(t, newDriver(t, synced), oneBacklog)

	sentinel.Failover(t, replica)
	newKombu(replica, redis.Config{}).Publish(t, "celery", brokertest.Message{})
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {Backlog: 2}})

	cfg.MasterName = "other"
	cfg.Timeout, cfg.Ref = brokertest.Timeout, newKombu(replica, redis.Config{}).cfg.Ref
	brokertest.ExpectError(t, newDriver(t, cfg), "master_name")
}

func TestFailoverList(t *testing.T) {
	first := servers.StartRedis(t, servers.RedisOptions{})
	second := servers.StartRedis(t, servers.RedisOptions{})
	newKombu(second, redis.Config{}).Publish(t, "celery", make([]brokertest.Message, 2)...)
	d := oneWaiting(t, first, redis.Config{URL: first.URL(0) + ";" + second.URL(0)})
	brokertest.ExpectEventually(t, d, oneBacklog)
	first.Stop(t)
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {Backlog: 2}})
	first.Start(t)
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"celery": {Backlog: 2}})
	first.Stop(t)
	second.Stop(t)
	brokertest.ExpectError(t, d, first.Address(), second.Address(), "is the server running")
}

func TestReplicaWithoutPrimaryIsNotBelieved(t *testing.T) {
	primary := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"repl-diskless-sync-delay 0"}})
	replica := servers.StartRedis(t, servers.RedisOptions{Directives: []string{
		"replicaof " + strings.Replace(primary.Address(), ":", " ", 1),
	}})
	newKombu(primary, redis.Config{}).Publish(t, "celery", brokertest.Message{})
	cfg := newKombu(replica, redis.Config{}).cfg
	cfg.URL, cfg.Queues = replica.URL(0), []string{"celery"}
	d := newDriver(t, cfg)
	brokertest.ExpectEventually(t, d, oneBacklog)
	primary.Stop(t)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := d.Sample(t.Context()); err != nil {
			brokertest.CheckText(t, err, "lost its primary")
			return
		}
	}
	t.Error("a replica that has lost its primary is still believed")
}

func TestOneNamedConnection(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	d := oneWaiting(t, server, redis.Config{URL: server.URL(0)})
	for range 3 {
		brokertest.ExpectEventually(t, d, oneBacklog)
	}
	clients := server.Admin().ClientList(context.Background()).Val()
	if n := strings.Count(clients, " name=celery-hpa "); n != 1 {
		t.Errorf("%d connections are named celery-hpa, want 1:\n%s", n, clients)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := map[string]struct {
		cfg  redis.Config
		want string
	}{
		"bad URL":                 {redis.Config{URL: "redis://:SECRET@:1"}, "no host"},
		"AMQP":                    {redis.Config{URL: "amqp://u:SECRET@h"}, "not read by the Redis driver"},
		"sentinel without a name": {redis.Config{URL: "sentinel://:SECRET@h"}, "master_name"},
		"no CA file":              {redis.Config{URL: "rediss://:SECRET@h?ssl_ca_certs=/nowhere"}, "/nowhere"},
		"authorities without PEM": {redis.Config{URL: "rediss://:SECRET@h", CA: []byte("none")}, "no certificate in PEM form"},
		"key without certificate": {redis.Config{URL: "rediss://:SECRET@h", Key: []byte("a key")}, "client certificate"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := redis.New(tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("New = %v, want an error with %q and no credential", err, tc.want)
			}
		})
	}
}

// pemOf reads a PEM file.
func pemOf(t testing.TB, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
