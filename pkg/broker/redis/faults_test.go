package redis_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// sampleOf takes one sample and fails the test at an error.
func sampleOf(t *testing.T, d brokertest.Driver) *queue.Sample {
	t.Helper()
	s, err := d.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// holdValue adds an entry of unacked as it is given.
func (b *kombuBroker) holdValue(t *testing.T, tag, value string) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { b.hold(ctx, p, tag, value) })
}

// One entry that nobody can assign makes zeros unknown, and nothing else.
func TestUnattributedEntries(t *testing.T) {
	message := envelope(t, "media", "video.hd", brokertest.Message{})
	tests := map[string]struct{ value, want string }{
		"not JSON":                   {"\x80\x04 pickle", "shape"},
		"empty":                      {"", "shape"},
		"an array of one":            {"[{}]", "shape"},
		"names that are no strings":  {`[{}, 1, ["celery"]]`, "shape"},
		"no routing key at all":      {`[{}, null, null]`, "shape"},
		"an exchange without tables": {unackedValue(t, message, "media", "video.hd"), "no binding matches"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := startKombu(t, redis.Config{})
			b.Publish(t, "busy", make([]brokertest.Message, 3)...)
			b.Take(t, "busy", 1)
			b.Publish(t, "idle", brokertest.Message{})
			b.holdValue(t, "odd-tag", tc.value)
			d := b.NewDriver(t, brokertest.RightPassword, "busy", "idle")
			brokertest.Expect(t, b, d, map[string]brokertest.Counts{"busy": {Backlog: 2, InFlight: 1}})
			s := sampleOf(t, d)
			if s.Unattributed != 1 {
				t.Errorf("Unattributed = %d, want 1", s.Unattributed)
			}
			idle := s.Queues["idle"]
			if idle.Backlog.Err != nil || idle.Backlog.N != 1 {
				t.Errorf("the backlog of the idle queue is %+v, want 1", idle.Backlog)
			}
			if idle.InFlight.Err == nil || idle.Scheduled.Err == nil || idle.Tasks().Err == nil {
				t.Fatalf("the idle queue is %+v, want its in-flight counts unknown", idle)
			}
			brokertest.CheckText(t, idle.InFlight.Err, `"idle"`, "1 messages", tc.want)
			b.do(t, func(ctx context.Context, p goredis.Pipeliner) { b.release(ctx, p, "odd-tag") })
			brokertest.Expect(t, b, d, map[string]brokertest.Counts{"idle": {Backlog: 1}})
		})
	}
}

// Values that differ from kombu's but say where they belong are counted.
func TestOtherShapesThatCanBeAttributed(t *testing.T) {
	message := envelope(t, "", "celery", brokertest.Message{ETA: time.Now().Add(time.Hour)})
	for name, value := range map[string]string{
		"the bare message":          message,
		"the message in an array":   "[" + message + "]",
		"null for the exchange":     "[" + message + `, null, "celery"]`,
		"more than three parts":     "[" + message + `, "", "celery", 1]`,
		"surrounded by white space": " [ " + message + ` , "" , "celery" ] `,
	} {
		t.Run(name, func(t *testing.T) {
			b := startKombu(t, redis.Config{})
			b.holdValue(t, "tag", value)
			brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword, "celery"), map[string]brokertest.Counts{"celery": {InFlight: 1, Scheduled: 1}})
		})
	}
}

func TestUserMadeExchanges(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.bind(t, "media", "video.#", `^video\..*?$`, "video")
	b.bind(t, "media", "*.hd", `^.*?[^\.]\.hd$`, "hd")
	b.bind(t, "plain", "key", "", "direct")
	b.bind(t, "everybody", "", "", "fan")
	b.bind(t, "copies", "", "", "bcast.4711")
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		p.SAdd(ctx, b.keys.Binding("media"), "no separators")
		p.SAdd(ctx, b.keys.Binding("broken"), "no separators")
		p.LPush(ctx, b.keys.Binding("list"), "no set")
		p.ZAdd(ctx, "_kombu.binding_deadlines", goredis.Z{Member: "media"})
		p.SAdd(ctx, "_kombu.binding_permanent.media", "x")
	})
	for _, to := range [][2]string{
		{"media", "video.sd"}, {"media", "video.hd"}, {"media", "audio.hd"}, {"plain", "key"}, {"everybody", "x"}, {"copies", "x"}, {"celeryev", "x"}, {"celery.pidbox", ""},
	} {
		b.holdValue(t, uuid.NewString(), unackedValue(t, envelope(t, to[0], to[1], brokertest.Message{}), to[0], to[1]))
	}
	want := map[string]brokertest.Counts{"video": {InFlight: 2}, "hd": {InFlight: 2}, "direct": {InFlight: 1}, "fan": {InFlight: 1}}
	brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword, "video", "hd", "direct", "fan"), want)
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, want)
	if got := len(sampleOf(t, d).Queues); got != len(want) {
		t.Errorf("%d queues were discovered, want %d", got, len(want))
	}

	// A message whose key matches nothing may be of any queue, until somebody
	// binds one.
	b.holdValue(t, "tag", unackedValue(t, envelope(t, "plain", "other", brokertest.Message{}), "plain", "other"))
	idle := b.NewDriver(t, brokertest.RightPassword, "idle")
	if s := sampleOf(t, idle); s.Queues["idle"].InFlight.Err == nil {
		t.Errorf("in flight of an idle queue is %+v, want unknown", s.Queues["idle"].InFlight)
	}
	b.bind(t, "plain", "other", "", "direct")
	brokertest.ExpectEventually(t, idle, map[string]brokertest.Counts{"idle": {}})
}

func TestQueueOfAMessageInFlightIsDiscovered(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "unbound", make([]brokertest.Message, 2)...)
	b.Take(t, "unbound", 1)
	brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword), map[string]brokertest.Counts{"unbound": {Backlog: 1, InFlight: 1}})
}

func TestHashAndIndexThatDiffer(t *testing.T) {
	b := startKombu(t, redis.Config{})
	d := b.NewDriver(t, brokertest.RightPassword, "celery", "idle")
	b.Publish(t, "celery", make([]brokertest.Message, 4)...)
	taken := b.Take(t, "celery", 4)
	all := map[string]brokertest.Counts{"celery": {InFlight: 4}, "idle": {}}
	brokertest.Expect(t, b, d, all)

	change := func(fill func(ctx context.Context, p goredis.Pipeliner)) {
		t.Helper()
		b.do(t, fill)
	}
	change(func(ctx context.Context, p goredis.Pipeliner) {
		p.ZAdd(ctx, b.keys.UnackedIndex, goredis.Z{Member: "leftover"})
	})
	brokertest.Expect(t, b, d, all)
	change(func(ctx context.Context, p goredis.Pipeliner) { p.HDel(ctx, b.keys.Unacked, taken[0].(delivery).tag) })
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {InFlight: 3}, "idle": {}})
	change(func(ctx context.Context, p goredis.Pipeliner) {
		p.HSet(ctx, b.keys.Unacked, "leftover", unackedValue(t, envelope(t, "", "idle", brokertest.Message{}), "", "idle"))
	})
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {InFlight: 3}, "idle": {InFlight: 1}})
	change(func(ctx context.Context, p goredis.Pipeliner) { p.Del(ctx, b.keys.UnackedIndex) })
	s := sampleOf(t, d)
	if s.Unattributed != 4 {
		t.Errorf("Unattributed = %d, want the 4 entries outside the index", s.Unattributed)
	}
	err := s.Queues["idle"].InFlight.Err
	if err == nil {
		t.Fatalf("in flight of the idle queue is %+v, want unknown", s.Queues["idle"].InFlight)
	}
	brokertest.CheckText(t, err, "missing in the index")
	change(func(ctx context.Context, p goredis.Pipeliner) { p.Del(ctx, b.keys.Unacked) })
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {}, "idle": {}})
}

// Messages that only move between list and hash are counted once, at whatever
// moment. Each is held so briefly that it is often gone before it is fetched; one
// that is gone twice may be missed, which is what a single mover can hold. All
// that makes no queue unknown. The other queues make the exchange so large that
// the server reads it in several parts, between which others have their turn.
func TestMovingMessagesAreCountedOnce(t *testing.T) {
	const messages, samples = 40, 200
	names := []string{"celery"}
	for i := range 1000 {
		names = append(names, fmt.Sprintf("other-%d", i))
	}
	b := startKombu(t, redis.Config{})
	b.Publish(t, "celery", make([]brokertest.Message, messages)...)
	d := b.NewDriver(t, brokertest.RightPassword, names...)
	ctx, stop := context.WithCancel(t.Context())
	var mover sync.WaitGroup
	mover.Go(func() {
		for ctx.Err() == nil {
			b.move(context.WithoutCancel(ctx), t)
		}
	})
	for range samples {
		s := sampleOf(t, d)
		depth := s.Queues["celery"]
		if tasks := depth.Tasks(); tasks.Err != nil || tasks.N < messages-1 || tasks.N > messages {
			t.Errorf("backlog %+v and in flight %+v, want %d in all or one fewer", depth.Backlog, depth.InFlight, messages)
		}
		if idle := s.Queues["other-0"].Tasks(); idle.Err != nil || idle.N != 0 {
			t.Errorf("an idle queue is %+v, want zero", idle)
		}
	}
	stop()
	mover.Wait()
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {Backlog: messages}})
}

// move takes a message and puts it back, each in one transaction, both to the end.
func (b *kombuBroker) move(ctx context.Context, t *testing.T) {
	list, tag := b.keys.Queue("celery", 0), uuid.NewString()
	text, err := b.Admin().LIndex(ctx, list, -1).Result()
	if err != nil {
		t.Errorf("look at the next message: %v", err)
		return
	}
	value := unackedValue(t, text, "", "celery")
	_, taken := b.Admin().TxPipelined(ctx, func(p goredis.Pipeliner) error {
		p.RPop(ctx, list)
		b.hold(ctx, p, tag, value)
		return nil
	})
	_, putBack := b.Admin().TxPipelined(ctx, func(p goredis.Pipeliner) error {
		b.release(ctx, p, tag)
		p.LPush(ctx, list, text)
		return nil
	})
	if err := errors.Join(taken, putBack); err != nil {
		t.Errorf("move a message: %v", err)
	}
}

func TestFirstSamplesOverManyMessages(t *testing.T) {
	b := startKombu(t, redis.Config{MaxFetch: 100})
	b.Publish(t, "celery", make([]brokertest.Message, 250)...)
	b.Take(t, "celery", 250)
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	for want := range 2 {
		s := sampleOf(t, d).Queues["celery"]
		if s.InFlight.Err == nil || s.Backlog.Err != nil {
			t.Fatalf("sample %d is %+v, want in flight unknown and the backlog known", want, s)
		}
		brokertest.CheckText(t, s.InFlight.Err, "still to be read")
	}
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {InFlight: 250}})
}

func TestEstimateBeyondTheBound(t *testing.T) {
	b := startKombu(t, redis.Config{MaxTags: 200})
	for name, n := range map[string]int{"large": 900, "small": 300} {
		b.Publish(t, name, make([]brokertest.Message, n)...)
		b.Take(t, name, n)
	}
	d := b.NewDriver(t, brokertest.RightPassword, "large", "small", "idle")
	for range 5 {
		s := sampleOf(t, d)
		large, small := s.Queues["large"].InFlight, s.Queues["small"].InFlight
		if large.Err != nil || small.Err != nil {
			t.Fatalf("the sample is %+v", s)
		}
		// 200 of 1,200: the standard deviation of the estimate is about 37, and
		// this allows eight of them.
		if large.N < 600 || large.N > 1150 || large.N+small.N < 1199 || large.N+small.N > 1201 {
			t.Errorf("in flight is %d and %d, want about 900 and 300, together 1,200", large.N, small.N)
		}
		if s.Queues["idle"].InFlight.Err == nil {
			t.Errorf("in flight of the idle queue is %+v, want unknown", s.Queues["idle"].InFlight)
		}
	}
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Del(ctx, b.keys.Unacked, b.keys.UnackedIndex) })
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"large": {}, "idle": {}})
}

func TestKeyOfTheWrongType(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "good", brokertest.Message{})
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Set(ctx, "bad", "x", 0) })
	d := b.NewDriver(t, brokertest.RightPassword, "good", "bad")
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"good": {Backlog: 1}})
	err := sampleOf(t, d).Queues["bad"].Backlog.Err
	if err == nil {
		t.Fatal("the backlog of a string is known")
	}
	brokertest.CheckText(t, err, `"bad"`, "WRONGTYPE")

	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Set(ctx, "unacked", "x", 0) })
	good := sampleOf(t, d).Queues["good"]
	if good.Backlog.Err != nil || good.InFlight.Err == nil {
		t.Fatalf("the good queue is %+v, want its backlog known and in flight unknown", good)
	}
	brokertest.CheckText(t, good.InFlight.Err, `"unacked"`, "WRONGTYPE")
}

func TestPermissionForSomeKeysOnly(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "open", brokertest.Message{})
	d := b.NewDriver(t, brokertest.RightPassword, "open", "closed")
	b.setRules(t, "resetkeys", "~open*", "~unacked*")
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"open": {Backlog: 1}})
	err := sampleOf(t, d).Queues["closed"].Backlog.Err
	if err == nil {
		t.Fatal("the backlog of a queue without permission is known")
	}
	brokertest.CheckText(t, err, "NOPERM", `"closed"`, "needs")

	b.setRules(t, "resetkeys", "~open*")
	open := sampleOf(t, d).Queues["open"]
	if open.Backlog.Err != nil || open.InFlight.Err == nil {
		t.Errorf("the queue is %+v, want its backlog known and in flight unknown", open)
	}
	b.Declare(t, "open")
	brokertest.ExpectError(t, b.NewDriver(t, brokertest.RightPassword), "discover queues", "NOPERM")
}

func TestWithoutAcknowledgementsNothingIsInFlight(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "celery", brokertest.Message{})
	brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword, "celery"), map[string]brokertest.Counts{"celery": {Backlog: 1}})
}

func TestDiscoveryAmongManyKeys(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for i := range 20_000 {
			p.Set(ctx, fmt.Sprintf("celery-task-meta-%d", i), "x", 0)
		}
	})
	b.expectDiscovery(t, 3)
}

func TestDiscoveryOfManyTables(t *testing.T) {
	startKombu(t, redis.Config{}).expectDiscovery(t, 300)
}

// expectDiscovery declares queues, each with an exchange of its own, and fails
// the test unless the first sample has them all, and a later one what is
// declared then.
func (b *kombuBroker) expectDiscovery(t *testing.T, queues int) {
	t.Helper()
	want := map[string]brokertest.Counts{}
	for i := range queues {
		name := fmt.Sprintf("queue-%d", i)
		b.Declare(t, name)
		want[name] = brokertest.Counts{}
	}
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, want)
	if s := sampleOf(t, d); s.DiscoveryPending || len(s.Queues) != queues {
		t.Errorf("%d queues found, pending = %t; want %d and false", len(s.Queues), s.DiscoveryPending, queues)
	}
	b.Declare(t, "later")
	brokertest.ExpectEventually(t, d, map[string]brokertest.Counts{"later": {}})
}

func TestOneTransactionPerSample(t *testing.T) {
	b := startKombu(t, redis.Config{})
	for i := range 50 {
		b.Publish(t, fmt.Sprintf("queue-%d", i), brokertest.Message{})
		b.Declare(t, fmt.Sprintf("queue-%d", i))
	}
	d := b.NewDriver(t, brokertest.RightPassword)
	sampleOf(t, d)
	before, _ := b.commandStats(t, "exec")
	sampleOf(t, d)
	if after, _ := b.commandStats(t, "exec"); after-before != 1 {
		t.Errorf("a sample took %d transactions, want 1", after-before)
	}
}

// A server that loads its data says so, which is no zero.
func TestServerThatLoadsItsData(t *testing.T) {
	b := startKombu(t, redis.Config{})
	b.Publish(t, "celery", make([]brokertest.Message, 50)...)
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	reloaded := b.reloadSlowly(t)
	loading := false
	for {
		s, err := d.Sample(t.Context())
		switch {
		case err != nil:
			brokertest.CheckText(t, err, "LOADING", "wait")
			loading = true
		case s.Queues["celery"].Backlog != queue.Known(50, s.At):
			t.Fatalf("the backlog is %+v, want 50", s.Queues["celery"].Backlog)
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

// reloadSlowly has the server load its data again, for a second: a hundred keys, 10 ms
// each, between which it answers clients. What compresses well would be read at once.
func (b *kombuBroker) reloadSlowly(t *testing.T) (reloaded <-chan error) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for i := range 100 {
			p.Set(ctx, fmt.Sprintf("key-%d", i), rand.Text()+strings.Repeat(rand.Text(), 100), 0)
		}
		p.ConfigSet(ctx, "rdbcompression", "no")
		p.ConfigSet(ctx, "key-load-delay", "10000")
		p.ConfigSet(ctx, "loading-process-events-interval-bytes", "1024")
	})
	ended := make(chan error, 1)
	go func() { ended <- b.Admin().Do(context.Background(), "debug", "reload").Err() }()
	return ended
}
