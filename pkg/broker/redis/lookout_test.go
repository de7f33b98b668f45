package redis_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

func newLookout(t testing.TB, cfg redis.Config) *redis.Lookout {
	t.Helper()
	cfg.Ref, cfg.Timeout = newKombu(nil, redis.Config{}).cfg.Ref, brokertest.Timeout
	l, err := redis.NewLookout(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// lookoutLine is a line whose calls fail the test when they fail.
type lookoutLine struct {
	*redis.LookoutLine
	t testing.TB
}

// openLine opens a line to a server, which must tell of writes.
func openLine(t testing.TB, cfg redis.Config) lookoutLine {
	t.Helper()
	line := openAnyLine(t, newLookout(t, cfg))
	if !line.Tells() || line.Reason() != nil {
		t.Fatalf("Tells = %t, because %v; want true, and no reason", line.Tells(), line.Reason())
	}
	return line
}

func openAnyLine(t testing.TB, l *redis.Lookout) lookoutLine {
	t.Helper()
	line, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return lookoutLine{line, t}
}

// count reads queues, all of which must be known.
func (l lookoutLine) count(queues ...string) map[string]int64 {
	l.t.Helper()
	counts, err := l.Read(context.Background(), queues)
	if err != nil {
		l.t.Fatal(err)
	}
	if len(counts) != len(queues) {
		l.t.Fatalf("%d counts of %d queues", len(counts), len(queues))
	}
	got := map[string]int64{}
	for i, c := range counts {
		if c.Err != nil || c.At.IsZero() || time.Since(c.At) > patience {
			l.t.Fatalf("queue %q is %+v, want it known as of now", queues[i], c)
		}
		got[queues[i]] = c.N
	}
	return got
}

// expect reads queues and compares what waits there.
func (l lookoutLine) expect(want map[string]int64) {
	l.t.Helper()
	if diff := cmp.Diff(want, l.count(slices.Collect(maps.Keys(want))...)); diff != "" {
		l.t.Fatalf("what waits, -want +got:\n%s", diff)
	}
}

// told waits until something is told.
func (l lookoutLine) told() []string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	queues, err := l.Told(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	return queues
}

// awaitTold waits until a queue is told, and returns which others were told before.
func (l lookoutLine) awaitTold(name string) []string {
	l.t.Helper()
	var others []string
	for {
		queues := l.told()
		if queues == nil {
			l.t.Fatalf("all queues were told, want %q", name)
		}
		others = append(others, slices.DeleteFunc(slices.Clone(queues), func(q string) bool { return q == name })...)
		if slices.Contains(queues, name) {
			return others
		}
	}
}

// end waits for the error with which a line ends.
func (l lookoutLine) end() error {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, err := l.Told(ctx); err != nil {
			if ctx.Err() != nil {
				l.t.Fatal("the line goes on")
			}
			return err
		}
	}
}

// There are many ways to put a message into a list, and to take it out. Each is told
// once, and what is read then is what is there.
func TestLookoutIsToldOfEveryWrite(t *testing.T) {
	const name = "celery"
	list, urgent := name, name+"\x06\x169"
	tests := map[string]struct {
		before, write func(ctx context.Context, p goredis.Cmdable)
		was, is       int64
	}{
		"LPUSH": {
			write: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m") }, is: 1,
		},
		"RPUSH, as a worker puts it back": {
			write: func(ctx context.Context, p goredis.Cmdable) { p.RPush(ctx, list, "m") }, is: 1,
		},
		"LPUSH behind other messages": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m", "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m") }, was: 2, is: 3,
		},
		"LPUSH with a priority": {
			write: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, urgent, "m") }, is: 1,
		},
		"LPUSH with the lowest priority beside others": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m"); p.LPush(ctx, urgent, "m", "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, name+"\x06\x161", "m") }, was: 3, is: 4,
		},
		"LPUSH in a transaction": {
			write: func(ctx context.Context, p goredis.Cmdable) {
				_, _ = p.TxPipelined(ctx, func(p goredis.Pipeliner) error { p.LPush(ctx, list, "m"); p.LPush(ctx, urgent, "m"); return nil })
			}, is: 2,
		},
		"LPUSH in a script": {
			write: func(ctx context.Context, p goredis.Cmdable) {
				p.Eval(ctx, `return redis.call("LPUSH", KEYS[1], "m")`, []string{list})
			}, is: 1,
		},
		"BRPOP": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.BRPop(ctx, time.Second, list) }, was: 1,
		},
		"RENAME": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, "elsewhere", "m", "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.Rename(ctx, "elsewhere", list) }, is: 2,
		},
		"LMOVE": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, "elsewhere", "m", "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.LMove(ctx, "elsewhere", urgent, "left", "left") }, is: 1,
		},
		"COPY": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, "elsewhere", "m", "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.Copy(ctx, "elsewhere", list, 0, false) }, is: 2,
		},
		"RESTORE": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, "elsewhere", "m", "m") },
			write: func(ctx context.Context, p goredis.Cmdable) {
				p.Restore(ctx, list, 0, p.Dump(ctx, "elsewhere").Val())
			}, is: 2,
		},
		"MOVE from another database": {
			before: func(ctx context.Context, p goredis.Cmdable) {
				_, _ = p.TxPipelined(ctx, func(p goredis.Pipeliner) error {
					p.Do(ctx, "select", 1)
					p.LPush(ctx, list, "m", "m")
					p.Do(ctx, "select", 0)
					return nil
				})
			},
			write: func(ctx context.Context, p goredis.Cmdable) {
				_, _ = p.TxPipelined(ctx, func(p goredis.Pipeliner) error {
					p.Do(ctx, "select", 1)
					p.Move(ctx, list, 0)
					p.Do(ctx, "select", 0)
					return nil
				})
			}, is: 2,
		},
		"DEL": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, urgent, "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.Del(ctx, urgent) }, was: 1,
		},
		"expiry": {
			before: func(ctx context.Context, p goredis.Cmdable) { p.LPush(ctx, list, "m") },
			write:  func(ctx context.Context, p goredis.Cmdable) { p.PExpireAt(ctx, list, time.Now().Add(-time.Second)) }, was: 1,
		},
	}
	server := servers.StartRedis(t, servers.RedisOptions{})
	for by, tt := range tests {
		t.Run(by, func(t *testing.T) {
			ctx := context.Background()
			if err := server.Admin().FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				tt.before(ctx, server.Admin())
			}
			line := openLine(t, redis.Config{URL: server.URL(0)})
			line.expect(map[string]int64{name: tt.was})
			tt.write(ctx, server.Admin())
			if others := line.awaitTold(name); len(others) > 0 {
				t.Errorf("told of %q as well", others)
			}
			line.expect(map[string]int64{name: tt.is})
		})
	}
}

// A list may expire long after it was read, and nobody writes anything then.
func TestLookoutIsToldOfAListThatExpires(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	ctx := context.Background()
	server.Admin().LPush(ctx, "celery", "m")
	line := openLine(t, redis.Config{URL: server.URL(0)})
	server.Admin().PExpire(ctx, "celery", 300*time.Millisecond)
	line.expect(map[string]int64{"celery": 1})
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 0})
}

func TestLookoutIsToldOnceUntilItReadsAgain(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	ctx := context.Background()
	line := openLine(t, redis.Config{URL: server.URL(0)})
	line.expect(map[string]int64{"one": 0, "two": 0, "three": 0})
	server.Admin().LPush(ctx, "never-read", "m")
	server.Admin().LPush(ctx, "one", "m")
	line.awaitTold("one")
	server.Admin().LPush(ctx, "one", "m")
	server.Admin().LPush(ctx, "two", "m")
	if others := line.awaitTold("two"); len(others) > 0 {
		t.Errorf("told of %q as well, want the second write to a queue told after it was read again", others)
	}
	line.expect(map[string]int64{"one": 2})
	server.Admin().LPush(ctx, "one", "m")
	line.awaitTold("one")

	line.expect(map[string]int64{"one": 3, "two": 1})
	line.Forget([]string{"one"})
	server.Admin().LPush(ctx, "one", "m")
	server.Admin().LPush(ctx, "two", "m")
	if others := line.awaitTold("two"); len(others) > 0 {
		t.Errorf("told of %q as well, which was forgotten", others)
	}
	line.expect(map[string]int64{"one": 4})
	server.Admin().LPush(ctx, "one", "m")
	line.awaitTold("one")
}

// What was told and not asked for yet is forgotten as well.
func TestLookoutForgetsWhatItWasTold(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	line.expect(map[string]int64{"one": 0, "two": 0})
	server.Admin().LPush(context.Background(), "one", "m")
	eventually.Holds(t, patience, "the notice", func() bool { return countOf(t, server, "stats", "tracking_total_keys") < 20 })
	line.expect(map[string]int64{"three": 0}) // the notice has been sent before the answer
	line.Forget([]string{"one"})
	server.Admin().LPush(context.Background(), "two", "m")
	if others := line.awaitTold("two"); len(others) > 0 {
		t.Errorf("told of %q as well, which was forgotten", others)
	}
}

// countOf is a number that the server tells of itself.
func countOf(t testing.TB, server *servers.Redis, section, name string) int {
	t.Helper()
	info, err := server.Admin().InfoMap(context.Background(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(info[strings.ToUpper(section[:1])+section[1:]][name])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Of queues that were written while nobody asked, each is told, and in few calls.
func TestLookoutGathersWhatItIsTold(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	want := map[string]int64{}
	for i := range 500 {
		want[fmt.Sprintf("queue-%d", i)] = 0
	}
	line.expect(want)
	newKombu(server, redis.Config{}).do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for name := range want {
			p.LPush(ctx, name, "m")
			want[name] = 1
		}
	})
	told := map[string]bool{}
	for len(told) < len(want) {
		for _, name := range line.told() {
			if told[name] {
				t.Fatalf("%q is told twice", name)
			}
			told[name] = true
		}
	}
	line.expect(want)
}

func TestLookoutIsToldThatEverythingIsGone(t *testing.T) {
	for _, command := range []string{"flushall", "flushdb", "flushall async"} {
		t.Run(command, func(t *testing.T) {
			server := servers.StartRedis(t, servers.RedisOptions{})
			ctx := context.Background()
			server.Admin().LPush(ctx, "celery", "m")
			line := openLine(t, redis.Config{URL: server.URL(0)})
			line.expect(map[string]int64{"celery": 1, "other": 0})
			arguments := []any{}
			for word := range strings.FieldsSeq(command) {
				arguments = append(arguments, word)
			}
			server.Admin().Do(ctx, arguments...)
			if got := line.told(); got != nil {
				t.Fatalf("told of %q, want nil for all", got)
			}
			line.expect(map[string]int64{"celery": 0, "other": 0})
			server.Admin().LPush(ctx, "other", "m")
			line.awaitTold("other")
		})
	}
}

// A key of the same name elsewhere is told for nothing: that is allowed.
func TestLookoutReadsItsOwnDatabase(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	ctx := context.Background()
	line := openLine(t, redis.Config{URL: server.URL(3)})
	line.expect(map[string]int64{"celery": 0})
	server.Admin().LPush(ctx, "celery", "m")
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 0})
	inThree(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.LPush(ctx, "celery", "m", "m") })
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 2})
}

// inThree runs commands in database 3.
func inThree(t *testing.T, server *servers.Redis, fill func(context.Context, goredis.Pipeliner)) {
	t.Helper()
	newKombu(server, redis.Config{}).do(t, func(ctx context.Context, p goredis.Pipeliner) {
		p.Do(ctx, "select", 3)
		fill(ctx, p)
		p.Do(ctx, "select", 0)
	})
}

func TestLookoutKnowsRenamedKeys(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	b := newKombu(server, redis.Config{GlobalKeyPrefix: "my[app]:", Separator: ":"})
	line := openLine(t, redis.Config{URL: server.URL(0), GlobalKeyPrefix: "my[app]:", Separator: ":"})
	line.expect(map[string]int64{"media": 0, "media:4": 0, "idle": 0})
	b.Publish(t, "media", brokertest.Message{Priority: 9})
	if others := line.awaitTold("media"); len(others) > 0 {
		t.Errorf("told of %q as well", others)
	}
	line.expect(map[string]int64{"media": 1})
	server.Admin().LPush(context.Background(), "idle", "m") // without the prefix, another's
	// This list is that of one queue, and of a priority of the other.
	b.Publish(t, "media:4", brokertest.Message{})
	told := map[string]bool{}
	for len(told) < 2 {
		for _, name := range line.told() {
			told[name] = true
		}
	}
	if !told["media"] || !told["media:4"] {
		t.Errorf("told of %v, want both queues of a list", told)
	}
}

func TestLookoutHearsCelery(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(3), Conf: map[string]any{
		"broker_transport_options": map[string]any{"global_keyprefix": "myapp:", "priority_steps": []int{0, 3, 6, 9}},
	}})
	line := openLine(t, redis.Config{URL: server.URL(3), GlobalKeyPrefix: "myapp:"})
	line.expect(map[string]int64{"celery": 0})
	app.Publish(t, servers.CeleryTask{N: 1, Gate: "gate"})
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 1})
	app.Publish(t, servers.CeleryTask{N: 1, Gate: "gate", Priority: new(6)})
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 2})
	app.StartWorker(t, servers.WorkerOptions{Concurrency: 1, Prefetch: 2})
	for line.count("celery")["celery"] > 0 {
		line.awaitTold("celery")
	}
}
