package redis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// lookouts are the connections of lines that a server has: those that read, and those
// that hear.
func lookouts(t *testing.T, server *servers.Redis) (reading, hearing []string) {
	t.Helper()
	for client := range strings.Lines(server.Admin().ClientList(context.Background()).Val()) {
		if !strings.Contains(client, " name=celery-hpa ") {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(client, "id="), " ")
		if strings.Contains(client, " sub=1 ") {
			hearing = append(hearing, id)
		} else {
			reading = append(reading, id)
		}
	}
	return reading, hearing
}

func TestLookoutHasTwoConnectionsAndLeavesNone(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	for range 3 {
		line.expect(map[string]int64{"celery": 0})
		server.Admin().LPush(context.Background(), "celery", "m")
		line.awaitTold("celery")
		server.Admin().Del(context.Background(), "celery")
	}
	if reading, hearing := lookouts(t, server); len(reading) != 1 || len(hearing) != 1 {
		t.Errorf("there are %d connections that read and %d that hear, want one each", len(reading), len(hearing))
	}
	if err := line.Close(); err != nil {
		t.Error(err)
	}
	brokertest.CheckText(t, line.end(), "closed")
	eventually.Holds(t, patience, "the connections to go", func() bool {
		reading, hearing := lookouts(t, server)
		return len(reading)+len(hearing) == 0 && countOf(t, server, "clients", "tracking_clients") == 0
	})
}

func TestLookoutToldEndsWithItsContext(t *testing.T) {
	line := openLine(t, redis.Config{URL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := line.Told(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Told = %v, want the context's error", err)
	}
	line.expect(map[string]int64{"celery": 0})
}

func TestClosingALookoutEndsTold(t *testing.T) {
	line := openLine(t, redis.Config{URL: servers.StartRedis(t, servers.RedisOptions{}).URL(0)})
	told := make(chan error)
	go func() {
		_, err := line.Told(context.Background())
		told <- err
	}()
	if err := line.Close(); err != nil {
		t.Error(err)
	}
	if err := <-told; err == nil {
		t.Error("Told returned without an error")
	}
	if _, err := line.Read(t.Context(), []string{"celery"}); err == nil {
		t.Error("a closed line reads")
	}
}

// What the server forgets with one connection must be noticed: nothing would be told
// any more.
func TestLookoutEndsWithEitherConnection(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	l := newLookout(t, redis.Config{URL: server.URL(0)})
	for name, which := range map[string]func(reading, hearing []string) string{
		"reads": func(reading, _ []string) string { return reading[0] },
		"hears": func(_, hearing []string) string { return hearing[0] },
	} {
		t.Run(name, func(t *testing.T) {
			line := openAnyLine(t, l)
			line.expect(map[string]int64{"celery": 0})
			id := which(lookouts(t, server))
			if err := server.Admin().ClientKillByFilter(context.Background(), "id", id).Err(); err != nil {
				t.Fatal(err)
			}
			brokertest.CheckText(t, line.end(), "look out for messages of broker ns/broker at "+server.Address(), "is lost")
			_ = line.Close()
			eventually.Holds(t, patience, "the connections to go", func() bool {
				reading, hearing := lookouts(t, server)
				return len(reading)+len(hearing) == 0
			})
		})
	}
}

// A connection that is replaced would read on, or hear on, and nobody would be told.
func TestLookoutReplacesNoConnection(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	line.expect(map[string]int64{"celery": 0})
	reading, hearing := lookouts(t, server)
	before := countOf(t, server, "stats", "total_connections_received")
	for _, id := range append(reading, hearing...) {
		if err := server.Admin().ClientKillByFilter(context.Background(), "id", id).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, err := line.Read(t.Context(), []string{"celery"})
		if err == nil {
			t.Fatal("a line reads on whose connection was cut")
		}
		brokertest.CheckText(t, err, server.Address())
	}
	_ = line.end()
	if after := countOf(t, server, "stats", "total_connections_received"); after != before {
		t.Errorf("%d connections were made anew", after-before)
	}
}

func TestLookoutEndsWithItsServerAndBeginsAnew(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss"})
	l := newLookout(t, redis.Config{URL: server.URL(0)})
	line := openAnyLine(t, l)
	line.expect(map[string]int64{"celery": 0})
	server.Stop(t)
	brokertest.CheckText(t, line.end(), server.Address(), "is lost")
	if _, err := line.Read(t.Context(), []string{"celery"}); err == nil {
		t.Error("a line reads from a server that is gone")
	}
	_, err := l.Open(t.Context())
	brokertest.CheckText(t, err, "look out for messages of broker ns/broker at "+server.Address(), "is the server running")
	server.Start(t)
	line = openAnyLine(t, l)
	line.expect(map[string]int64{"celery": 0})
	server.Admin().LPush(context.Background(), "celery", "m")
	line.awaitTold("celery")
}

func TestLookoutNoticesThatItsServerIsSilent(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	l := newLookout(t, redis.Config{URL: server.URL(0)})
	line := openAnyLine(t, l)
	line.expect(map[string]int64{"celery": 0})
	reader := openAnyLine(t, l)
	server.Pause(t)
	defer server.Resume(t)
	brokertest.CheckText(t, line.end(), server.Address(), "paused")
	_, err := reader.Read(t.Context(), []string{"celery"})
	brokertest.CheckText(t, err, server.Address(), "no answer in time")
	_, err = l.Open(t.Context())
	brokertest.CheckText(t, err, server.Address(), "no answer in time")
}

// Nothing else but pings goes over the connections while nobody writes.
func TestLookoutGoesOnWhileNobodyWrites(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	line.expect(map[string]int64{"celery": 0})
	looks := func() int64 {
		pings, _ := newKombu(server, redis.Config{}).commandStats(t, "ping")
		roles, _ := newKombu(server, redis.Config{}).commandStats(t, "role")
		return min(pings, roles)
	}
	before := looks()
	eventually.Holds(t, patience, "four pings over each connection", func() bool { return looks() >= before+4 })
	server.Admin().LPush(context.Background(), "celery", "m")
	line.awaitTold("celery")
}

// A server that remembers few keys tells of those that it forgets, for nothing. Each
// message is found all the same.
func TestLookoutOfMoreThanTheServerRemembers(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"tracking-table-max-keys 5"}})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	want := map[string]int64{}
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("queue-%d", i))
		want[names[i]] = 1
	}
	known := line.count(names...)
	for _, name := range names {
		server.Admin().LPush(context.Background(), name, "m")
	}
	eventually.Holds(t, patience, "all messages", func() bool {
		maps.Copy(known, line.count(line.told()...))
		return maps.Equal(known, want)
	})
}

func TestLookoutReadsMoreQueuesThanOneExchangeHolds(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	want := map[string]int64{}
	newKombu(server, redis.Config{}).do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for i := range 12_000 {
			name := fmt.Sprintf("queue-%d", i)
			want[name] = 0
			if i%1000 == 7 {
				p.LPush(ctx, name, "m")
				p.LPush(ctx, name+"\x06\x163", "m", "m")
				want[name] = 3
			}
		}
	})
	line := openLine(t, redis.Config{URL: server.URL(0)})
	line.expect(want)
	for _, name := range []string{"queue-0", "queue-4999", "queue-5000", "queue-11999", "queue-11007"} {
		server.Admin().LPush(context.Background(), name, "m")
		line.awaitTold(name)
		want[name]++
	}
	line.expect(want)
}

// What is wrong with one queue makes that one unknown, and no other.
func TestLookoutOfQueuesThatCannotBeRead(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	ctx := context.Background()
	server.Admin().Set(ctx, "no-list", "x", 0)
	server.Admin().Set(ctx, "no-level\x06\x163", "x", 0)
	server.Admin().LPush(ctx, "open", "m")
	allow, url := aclUser(t, server)
	allow(strings.Fields("~open* ~no-list* ~no-level* ~bare resetchannels " + redis.LookoutRights + " +llen +exists")...)
	line := openLine(t, redis.Config{URL: url})
	names := []string{"no-list", "no-level", "closed", "bare", "open"}
	counts, err := line.Read(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"WRONGTYPE", "WRONGTYPE", "NOPERM", "NOPERM"} {
		if counts[i].Err == nil {
			t.Errorf("queue %q is %+v, want it unknown", names[i], counts[i])
			continue
		}
		brokertest.CheckText(t, counts[i].Err, fmt.Sprintf("%q", names[i]), want)
		if want == "NOPERM" {
			brokertest.CheckText(t, counts[i].Err, "needs", "+llen")
		}
	}
	if counts[4].Err != nil || counts[4].N != 1 {
		t.Errorf("the good queue is %+v, want 1", counts[4])
	}
	server.Admin().Del(ctx, "no-list")
	line.awaitTold("no-list")
	line.expect(map[string]int64{"no-list": 0, "open": 1})
}

// A server that loads its data says so, which is no zero.
func TestLookoutOfAServerThatIsLoading(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "celery", make([]brokertest.Message, 50)...)
	reloaded := b.reloadSlowly(t)
	l := newLookout(t, redis.Config{URL: b.URL(0)})
	loading := false
	for {
		line := openAnyLine(t, l)
		counts, err := line.Read(t.Context(), []string{"celery"})
		switch {
		case err != nil:
			brokertest.CheckText(t, err, "LOADING", "wait")
			loading = true
		case counts[0].Err != nil || counts[0].N != 50:
			t.Fatalf("the queue is %+v, want 50", counts[0])
		}
		select {
		case err := <-reloaded:
			if err != nil || !loading {
				t.Errorf("the server was not seen loading (%v)", err)
			}
			return
		default:
		}
	}
}

func TestLookoutOfAReplicaThatHasLostItsPrimary(t *testing.T) {
	t.Parallel()
	primary := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"repl-diskless-sync-delay 0"}})
	replica := servers.StartRedis(t, servers.RedisOptions{Directives: []string{
		"replicaof " + strings.Replace(primary.Address(), ":", " ", 1),
	}})
	l := newLookout(t, redis.Config{URL: replica.URL(0)})
	var line lookoutLine
	eventually.Holds(t, patience, "a replica in step", func() bool {
		opened, err := l.Open(t.Context())
		line = lookoutLine{opened, t}
		return err == nil
	})
	defer func() { _ = line.Close() }()
	line.expect(map[string]int64{"celery": 0})
	primary.Admin().LPush(context.Background(), "celery", "m")
	line.awaitTold("celery")
	line.expect(map[string]int64{"celery": 1})
	primary.Stop(t)
	brokertest.CheckText(t, line.end(), replica.Address(), "lost its primary")
	_, err := l.Open(t.Context())
	brokertest.CheckText(t, err, replica.Address(), "lost its primary")
}

// Each rule of the rights is needed: without any of them nothing is told, but for what
// is named as optional, and queues are read all the same.
func TestLookoutNamesTheRightsThatItNeeds(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	allow, url := aclUser(t, server)
	b := newKombu(server, redis.Config{GlobalKeyPrefix: "myapp:"})
	b.Publish(t, "celery", make([]brokertest.Message, 2)...)
	rights := strings.Fields(redis.LookoutRights)
	for _, without := range append(rights, "") {
		t.Run("without "+without, func(t *testing.T) {
			allow("reset", "on", ">pw", "resetchannels", "-@all", "%R~myapp:celery*", "+llen", "+exists")
			allow(slices.DeleteFunc(slices.Clone(rights), func(right string) bool { return right == without })...)
			line := openAnyLine(t, newLookout(t, redis.Config{URL: url, GlobalKeyPrefix: "myapp:"}))
			for range 3 {
				line.expect(map[string]int64{"celery": 2})
			}
			if without == "" || without == "+ping" {
				line.expectTelling(b)
				return
			}
			if line.Tells() {
				t.Fatal("Tells = true, want false")
			}
			brokertest.CheckText(t, line.Reason(), "NOPERM", "ns/broker", server.Address(), "needs ", without, "ACL SETUSER")
			if !queue.IsMissingRight(line.Reason()) {
				t.Errorf("it is no missing right: %v", line.Reason())
			}
			if err := line.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// expectTelling puts a message into the queue, and takes it out again, after both
// connections were found alive twice.
func (l lookoutLine) expectTelling(b *kombuBroker) {
	l.t.Helper()
	if !l.Tells() {
		l.t.Fatalf("Tells = false: %v", l.Reason())
	}
	before := b.attempts(l.t, "ping")
	eventually.Holds(l.t, patience, "four pings", func() bool { return b.attempts(l.t, "ping") >= before+4 })
	list := b.keys.Queue("celery", 0)
	b.Admin().LPush(context.Background(), list, "m")
	l.awaitTold("celery")
	b.Admin().LPop(context.Background(), list)
}

// attempts is how often a command was called, those times included when that was refused.
func (b *kombuBroker) attempts(t testing.TB, command string) int64 {
	t.Helper()
	info, err := b.Admin().InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for field := range strings.SplitSeq(info["Commandstats"]["cmdstat_"+command], ",") {
		name, value, _ := strings.Cut(field, "=")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == "calls" || name == "rejected_calls") {
			sum += n
		}
	}
	return sum
}

func TestLookoutThatDoesNotWantToBeTold(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	line := openAnyLine(t, newLookout(t, redis.Config{URL: server.URL(0), Untold: true}))
	if line.Tells() {
		t.Error("Tells = true, want false")
	}
	brokertest.CheckText(t, line.Reason(), "lookout.tracking: false")
	for n := range int64(3) {
		line.expect(map[string]int64{"celery": n})
		server.Admin().LPush(context.Background(), "celery", "m")
	}
	if reading, hearing := lookouts(t, server); len(reading) != 1 || len(hearing) != 0 || countOf(t, server, "clients", "tracking_clients") != 0 {
		t.Errorf("there are %d connections that read and %d that hear, want one and none", len(reading), len(hearing))
	}
}

// Of a server that has no such command nothing is told. (Redis before 6 is like that,
// and some proxies are.)
func TestLookoutOfAServerWithoutTheCommand(t *testing.T) {
	for _, command := range []string{"client", "subscribe", "hello"} {
		t.Run(command, func(t *testing.T) {
			server := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"rename-command " + command + ` ""`}})
			server.Admin().LPush(context.Background(), "celery", "m")
			line := openAnyLine(t, newLookout(t, redis.Config{URL: server.URL(0)}))
			if line.Tells() {
				t.Fatal("Tells = true, want false")
			}
			brokertest.CheckText(t, line.Reason(), "unknown command", server.Address(), "Redis 6 or later")
			for range 3 {
				line.expect(map[string]int64{"celery": 1})
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := line.Told(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Told = %v, want the context's error", err)
			}
			server.Stop(t)
			if _, err := line.Read(t.Context(), []string{"celery"}); err == nil {
				t.Error("a line reads from a server that is gone")
			}
		})
	}
}
