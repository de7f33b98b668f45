package servers

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/certificates"
	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// redisTimeout bounds the start and the stop of a server.
const redisTimeout = 30 * time.Second

// RedisOptions say how a redis-server is set up. The zero value is a plain
// server without a password.
type RedisOptions struct {
	// Password is that of the default user.
	Password string
	// Users are further users in the words of the configuration, for example
	// "reader on >secret ~* -@all +llen".
	Users []string
	// TLS makes the port speak TLS alone, with the certificates of
	// Redis.Certificates.
	TLS bool
	// ClientCertificates makes the server want a certificate of its clients.
	ClientCertificates bool
	// Directives are further lines of the configuration.
	Directives []string
}

// Redis is a redis-server on a free loopback port and a Unix socket. Its methods
// are not safe for concurrent use.
type Redis struct {
	options RedisOptions
	folder  string
	port    int
	process *child.Process
	// Certificates are set if the server speaks TLS.
	Certificates *certificates.Files
	admin        *goredis.Client
}

// StartRedis starts a server and returns when it answers. It is stopped when
// the test ends.
func StartRedis(t testing.TB, options RedisOptions) *Redis {
	t.Helper()
	folder, err := os.MkdirTemp("", "redis") //nolint:usetesting // a socket's path may have 107 bytes only
	if err != nil {
		t.Fatalf("make a folder for redis-server: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	r := &Redis{options: options, folder: folder}
	if options.TLS {
		r.Certificates = certificates.New(t, folder)
	}
	r.admin = goredis.NewClient(&goredis.Options{
		Network: "unix", Addr: r.SocketPath(), Password: options.Password, MaxRetries: -1, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = r.admin.Close() })
	r.launch(t)
	return r
}

// launch picks a free port the first time. Somebody else may take it before the
// server does; then another is tried.
func (r *Redis) launch(t testing.TB) {
	t.Helper()
	for range 5 {
		if r.port == 0 {
			r.port = child.FreePort(t)
		}
		r.process = child.Start(t, "redis-server", exec.Command(redisProgram(t), r.writeConfig(t)))
		if r.awaitAnswer(t) {
			return
		}
		r.port = 0
	}
	t.Fatalf("redis-server does not start; its log:\n%s", r.process.Log())
}

// redisProgram is the path of redis-server.
func redisProgram(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is not installed: run make setup: %v", err)
	}
	return path
}

// awaitAnswer is false if the server ended instead of answering.
func (r *Redis) awaitAnswer(t testing.TB) bool {
	t.Helper()
	deadline := time.Now().Add(redisTimeout)
	for time.Now().Before(deadline) {
		if err := r.admin.Ping(context.Background()).Err(); err == nil {
			return true
		}
		select {
		case <-r.process.Done():
			return false
		case <-time.After(child.PollInterval):
		}
	}
	t.Fatalf("redis-server does not answer within %s; its log:\n%s", redisTimeout, r.process.Log())
	return false
}

func (r *Redis) writeConfig(t testing.TB) string {
	t.Helper()
	lines := []string{
		"bind 127.0.0.1 127.0.0.2", "dir " + r.folder, "unixsocket " + r.SocketPath(), "daemonize no",
		`save ""`, "appendonly no", "loglevel warning",
	}
	if r.options.TLS {
		lines = append(lines, "port 0", "tls-port "+strconv.Itoa(r.port), "tls-cert-file "+r.Certificates.ServerCert,
			"tls-key-file "+r.Certificates.ServerKey, "tls-ca-cert-file "+r.Certificates.CA)
		lines = append(lines, "tls-auth-clients "+map[bool]string{true: "yes", false: "no"}[r.options.ClientCertificates])
	} else {
		lines = append(lines, "port "+strconv.Itoa(r.port))
	}
	if r.options.Password != "" {
		lines = append(lines, "requirepass "+r.options.Password)
	}
	for _, user := range r.options.Users {
		lines = append(lines, "user "+user)
	}
	return child.WriteLines(t, filepath.Join(r.folder, "redis.conf"), append(lines, r.options.Directives...))
}

// SocketPath is the server's Unix socket.
func (r *Redis) SocketPath() string { return filepath.Join(r.folder, "socket") }

// Address is "127.0.0.1:port".
func (r *Redis) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// URL is the server's as Celery writes it, for the default user, with a
// database. For TLS, it names no files.
func (r *Redis) URL(db int) string {
	scheme, user := "redis", ""
	if r.options.TLS {
		scheme = "rediss"
	}
	if r.options.Password != "" {
		user = ":" + url.PathEscape(r.options.Password) + "@"
	}
	return fmt.Sprintf("%s://%s%s/%d", scheme, user, r.Address(), db)
}

// Admin is a client of the default user for database 0. It does not go through
// the port, so that it works whatever that asks for. It is closed when the test
// ends.
func (r *Redis) Admin() *goredis.Client { return r.admin }

// Pause stops the server's process where it stands: connections stay open and
// nothing answers.
func (r *Redis) Pause(t testing.TB) { r.process.Pause(t) }

// Resume lets a paused server go on.
func (r *Redis) Resume(t testing.TB) { r.process.Resume(t) }

// Stop ends the server and returns when it is gone. It writes its data, for a
// later Start.
func (r *Redis) Stop(t testing.TB) {
	t.Helper()
	if err := r.admin.Save(context.Background()).Err(); err != nil {
		t.Fatalf("save the data of redis-server: %v", err)
	}
	r.process.Kill()
}

// Start starts a stopped server again, on the same port, with the data that it
// had when it was stopped.
func (r *Redis) Start(t testing.TB) {
	t.Helper()
	port := r.port
	r.launch(t)
	if r.port != port {
		t.Fatalf("redis-server could not have its port %d again", port)
	}
}

// DropData makes a stopped server forget what it held.
func (r *Redis) DropData(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(r.folder, "dump.rdb")); err != nil {
		t.Fatalf("drop the data of redis-server: %v", err)
	}
}
