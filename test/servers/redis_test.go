package servers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strconv"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// connect makes a client for the port, as drivers have it.
func connect(t *testing.T, server *servers.Redis, secure *tls.Config) *goredis.Client {
	t.Helper()
	options, err := goredis.ParseURL(server.URL(0))
	if err != nil {
		t.Fatal(err)
	}
	options.TLSConfig, options.MaxRetries = secure, -1
	client := goredis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestRedisKeepsItsDataUnlessDropped(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss/word"})
	ctx := context.Background()
	client := connect(t, server, nil)
	if err := client.Set(ctx, "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	address := server.Address()
	server.Stop(t)
	if err := client.Ping(ctx).Err(); err == nil {
		t.Error("a stopped server answers")
	}
	server.Start(t)
	if got := client.Get(ctx, "key").Val(); got != "value" || server.Address() != address {
		t.Errorf("after a stop the key is %q at %s, want %q at %s", got, server.Address(), "value", address)
	}
	server.Stop(t)
	server.DropData(t)
	server.Start(t)
	if n := client.Exists(ctx, "key").Val(); n != 0 {
		t.Error("the data was not dropped")
	}
}

func TestPausedRedisIsSilentUntilResumed(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	server.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := connect(t, server, nil).Ping(ctx).Err(); err == nil {
		t.Error("a paused server answers")
	}
	server.Resume(t)
	if err := connect(t, server, nil).Ping(t.Context()).Err(); err != nil {
		t.Errorf("a resumed server does not answer: %v", err)
	}
}

func TestRedisCertificates(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{TLS: true, ClientCertificates: true})
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
	if err := connect(t, server, secure.Clone()).Ping(t.Context()).Err(); err == nil {
		t.Error("the server takes clients without a certificate")
	}
	secure.Certificates = []tls.Certificate{pair}
	if err := connect(t, server, secure).Ping(t.Context()).Err(); err != nil {
		t.Errorf("the server does not take its client's certificate: %v", err)
	}
}

func TestRedisEndsWithItsTest(t *testing.T) {
	var pid string
	t.Run("server", func(t *testing.T) {
		info, err := servers.StartRedis(t, servers.RedisOptions{}).Admin().InfoMap(t.Context(), "server").Result()
		if err != nil {
			t.Fatal(err)
		}
		pid = info["Server"]["process_id"]
	})
	if _, err := strconv.Atoi(pid); err != nil || isRunning(pid) {
		t.Errorf("redis-server %q is still running (%v)", pid, err)
	}
}
