package servers

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// SentinelOptions say what a sentinel watches.
type SentinelOptions struct {
	// MasterName is the name of the service.
	MasterName string
	// Password is that of the sentinel itself; empty means none.
	Password string
}

// Sentinel is a running Redis Sentinel.
type Sentinel struct {
	port   int
	client *goredis.Client
	name   string
}

// StartSentinel starts a sentinel that watches a server, alone: it may declare
// the server down, and elect, by itself. It is stopped when the test ends.
func StartSentinel(t testing.TB, primary *Redis, options SentinelOptions) *Sentinel {
	t.Helper()
	s := &Sentinel{port: child.FreePort(t), name: options.MasterName}
	lines := []string{
		"bind 127.0.0.1", "port " + strconv.Itoa(s.port), "dir " + t.TempDir(),
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1", options.MasterName, primary.port),
		fmt.Sprintf("sentinel down-after-milliseconds %s 500", options.MasterName),
		fmt.Sprintf("sentinel failover-timeout %s 2000", options.MasterName),
	}
	if primary.options.Password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", options.MasterName, primary.options.Password))
	}
	if options.Password != "" {
		lines = append(lines, "requirepass "+options.Password)
	}
	config := child.WriteLines(t, filepath.Join(t.TempDir(), "sentinel.conf"), lines)
	p := child.Start(t, "redis-sentinel", exec.Command(redisProgram(t), config, "--sentinel"))
	s.client = goredis.NewClient(&goredis.Options{Addr: s.Address(), Password: options.Password, MaxRetries: -1, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { _ = s.client.Close() })
	s.await(t, p, "answer", func() bool { return s.client.Ping(context.Background()).Err() == nil })
	return s
}

// Address is "127.0.0.1:port".
func (s *Sentinel) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Failover makes the sentinel promote the replica, and returns when it names it
// as the primary.
func (s *Sentinel) Failover(t testing.TB, replica *Redis) {
	t.Helper()
	ctx := context.Background()
	asked := false
	s.await(t, nil, "fail over", func() bool {
		asked = asked || s.client.Do(ctx, "sentinel", "failover", s.name).Err() == nil
		at, err := s.client.Do(ctx, "sentinel", "get-master-addr-by-name", s.name).StringSlice()
		return err == nil && len(at) == 2 && at[1] == strconv.Itoa(replica.port)
	})
}

// await polls a condition.
func (s *Sentinel) await(t testing.TB, p *child.Process, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(redisTimeout); !condition(); time.Sleep(child.PollInterval) {
		if time.Now().After(deadline) {
			if p != nil {
				t.Logf("its log:\n%s", p.Log())
			}
			t.Fatalf("redis-sentinel does not %s within %s", what, redisTimeout)
		}
	}
}
