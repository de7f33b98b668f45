package redis_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// expectToldOf puts a message into a queue of a server, to be told by lines that have
// read nothing yet.
func (l lookoutLine) expectToldOf(server *servers.Redis, name string) {
	l.t.Helper()
	before := l.count(name)[name]
	if err := server.Admin().LPush(context.Background(), name, "m").Err(); err != nil {
		l.t.Fatal(err)
	}
	l.awaitTold(name)
	l.expect(map[string]int64{name: before + 1})
}

func TestLookoutThroughEveryKindOfConnection(t *testing.T) {
	plain := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss"})
	secure := servers.StartRedis(t, servers.RedisOptions{TLS: true, ClientCertificates: true})
	certificates := secure.Certificates
	for kind, c := range map[string]struct {
		server *servers.Redis
		cfg    redis.Config
	}{
		"password":    {plain, redis.Config{URL: plain.URL(0)}},
		"Unix socket": {plain, redis.Config{URL: "redis+socket://:p%40ss@" + plain.SocketPath() + "?virtual_host=0"}},
		"TLS": {secure, redis.Config{
			URL: secure.URL(0), CA: pemOf(t, certificates.CA), Cert: pemOf(t, certificates.ClientCert), Key: pemOf(t, certificates.ClientKey),
		}},
	} {
		t.Run(kind, func(t *testing.T) { openLine(t, c.cfg).expectToldOf(c.server, "celery") })
	}
	for wrong, c := range map[string]struct{ url, want string }{
		"no password":       {"redis://" + plain.Address(), "put it into the broker URL"},
		"wrong password":    {"redis://:SECRET@" + plain.Address(), "password of the broker URL is wrong"},
		"no such database":  {plain.URL(99), "fewer databases"},
		"TLS to plain":      {"rediss://" + plain.Address(), "no answer in time"},
		"plain to TLS":      {"redis://" + secure.Address(), "does it want TLS"},
		"unknown authority": {secure.URL(0), "set caFile"},
	} {
		t.Run(wrong, func(t *testing.T) {
			for _, untold := range []bool{false, true} {
				_, err := newLookout(t, redis.Config{URL: c.url, Untold: untold}).Open(t.Context())
				if err == nil {
					t.Fatalf("Untold = %t: connected", untold)
				}
				brokertest.CheckText(t, err, "ns/broker", c.want)
				if strings.Contains(err.Error(), "SECRET") {
					t.Errorf("the error has a credential: %v", err)
				}
			}
		})
	}
}

func TestLookoutFollowsTheSentinels(t *testing.T) {
	t.Parallel()
	primary := servers.StartRedis(t, servers.RedisOptions{Password: "pw", Directives: []string{"masterauth pw", "repl-diskless-sync-delay 0"}})
	replica := servers.StartRedis(t, servers.RedisOptions{Password: "pw", Directives: []string{
		"masterauth pw", "replicaof " + strings.Replace(primary.Address(), ":", " ", 1),
	}})
	sentinel := servers.StartSentinel(t, primary, servers.SentinelOptions{MasterName: "main", Password: "sentinelpw"})
	l := newLookout(t, redis.Config{
		URL:        fmt.Sprintf("sentinel://:pw@127.0.0.1:1/0;sentinel://%s", sentinel.Address()),
		MasterName: "main", SentinelPassword: "sentinelpw",
	})
	line := openAnyLine(t, l)
	line.expectToldOf(primary, "celery")
	second := openAnyLine(t, l)
	second.expectToldOf(primary, "celery")
	sentinel.Failover(t, replica)
	brokertest.CheckText(t, line.end(), "main of sentinels")
	brokertest.CheckText(t, second.end(), "main of sentinels")
	openAnyLine(t, l).expectToldOf(replica, "celery")
}

func TestLookoutTriesEachServerOfAList(t *testing.T) {
	first := servers.StartRedis(t, servers.RedisOptions{})
	second := servers.StartRedis(t, servers.RedisOptions{})
	l := newLookout(t, redis.Config{URL: first.URL(0) + ";" + second.URL(0)})
	line := openAnyLine(t, l)
	line.expectToldOf(first, "celery")
	first.Stop(t)
	_ = line.end()
	line = openAnyLine(t, l)
	line.expectToldOf(second, "celery")
	second.Stop(t)
	_ = line.end()
	_, err := l.Open(t.Context())
	brokertest.CheckText(t, err, first.Address(), second.Address(), "is the server running")
}

func TestNewLookoutRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"redis://:SECRET@:1": "no host", "amqp://u:SECRET@h": "not read by the Redis driver", "sentinel://:SECRET@h": "master_name",
		"rediss://:SECRET@h?ssl_ca_certs=/nowhere": "/nowhere",
	} {
		_, err := redis.NewLookout(redis.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("NewLookout = %v, want an error with %q and no credential", err, want)
		}
	}
}
