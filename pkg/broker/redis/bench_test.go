package redis_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// Figures that the benchmarks report, beside the time of one sample:
//
//	core-%       CPU time of this process for one sample a second, of one core
//	exchanges    transactions per sample
//	exec-ms      the mean time that the server takes for the transaction
//	max-cmd-ms   the longest single command on the server, by its SLOWLOG: time
//	             on the clock, so that a busy machine shows in it
//	p99-cmd-ms   the 99th percentile of those of over 0.1 ms
//	rss-MiB      resident memory of this process, the driver's included

// BenchmarkSampleOf10000Queues has one message in each queue, and priorities in
// one of a hundred. The queues are named in the configuration, or discovered in
// as many binding tables.
func BenchmarkSampleOf10000Queues(b *testing.B) {
	broker := newKombu(servers.StartRedis(b, servers.RedisOptions{}), redis.Config{})
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("queue-%05d", i))
	}
	for group := range slices.Chunk(names, 1000) {
		broker.do(b, func(ctx context.Context, p goredis.Pipeliner) {
			for i, name := range group {
				p.LPush(ctx, broker.keys.Queue(name, 0), "{}")
				if i%100 == 0 {
					p.LPush(ctx, broker.keys.Queue(name, 3), "{}")
				}
				p.SAdd(ctx, broker.keys.Binding(name), strings.Join([]string{name, "", name}, celery.DefaultSeparator))
			}
		})
	}
	for kind, configured := range map[string][]string{"named": names, "discovered": nil} {
		b.Run(kind, func(b *testing.B) {
			cfg := broker.cfg
			cfg.URL, cfg.Queues = broker.URL(0), configured
			measure(b, broker, newDriver(b, cfg), func() map[string]brokertest.Counts {
				return map[string]brokertest.Counts{"queue-00000": {Backlog: 2}, "queue-00001": {Backlog: 1}}
			})
		})
	}
}

// BenchmarkSampleOf100000Unacked replaces 1,000 of the messages in flight
// before each sample: 1,000 are acknowledged and 1,000 taken.
func BenchmarkSampleOf100000Unacked(b *testing.B) {
	benchmarkUnacked(b, redis.Config{}, func([]string) int64 { return 0 })
}

// benchmarkUnacked is BenchmarkSampleOf100000Unacked. Before each sample, execute is
// told the ids of the tasks that are held, in the order in which they were taken, and
// returns how many of queue-0 are in flight beside them.
func benchmarkUnacked(b *testing.B, cfg redis.Config, execute func(ids []string) int64) {
	broker := newKombu(servers.StartRedis(b, servers.RedisOptions{}), cfg)
	padding := strings.Repeat("x", 1000)
	held := map[string]string{} // tag → queue
	var tags, ids []string
	take := func(n int) {
		broker.do(b, func(ctx context.Context, p goredis.Pipeliner) {
			for range n {
				name := fmt.Sprintf("queue-%d", len(tags)%3)
				text := envelope(b, "", name, brokertest.Message{})
				tag := tagOf(b, text)
				broker.hold(ctx, p, tag, unackedValue(b, strings.Replace(text, `"body":"`, `"body":"`+padding, 1), "", name))
				held[tag] = name
				tags = append(tags, tag)
				if cfg.Executing != nil {
					ids = append(ids, idOf(b, delivery{text: text}))
				}
			}
		})
	}
	acknowledge := func(n int) {
		broker.do(b, func(ctx context.Context, p goredis.Pipeliner) {
			for _, tag := range tags[:n] {
				broker.release(ctx, p, tag)
				delete(held, tag)
			}
		})
		tags = slices.Clone(tags[n:])
		if cfg.Executing != nil {
			ids = slices.Clone(ids[n:])
		}
	}
	for range 100 {
		take(1000)
	}
	cfg = broker.cfg
	cfg.URL, cfg.Queues, cfg.Timeout = broker.URL(0), []string{"queue-0", "queue-1", "queue-2"}, 10*time.Second
	d := newDriver(b, cfg)
	want := map[string]brokertest.Counts{}
	measure(b, broker, d, func() map[string]brokertest.Counts {
		acknowledge(1000)
		take(1000)
		clear(want)
		for _, name := range held {
			c := want[name]
			c.InFlight++
			want[name] = c
		}
		c := want["queue-0"]
		c.InFlight += execute(ids)
		want["queue-0"] = c
		return want
	})
}

// measure takes b.N samples, each after a change that says what to expect. Only
// the sampling is measured. The first samples, which learn, are left out.
func measure(b *testing.B, broker *kombuBroker, d *redis.Driver, change func() map[string]brokertest.Counts) {
	b.Helper()
	brokertest.ExpectEventually(b, d, change())
	ctx := context.Background()
	for _, setting := range []string{"slowlog-log-slower-than 100", "slowlog-max-len 10000"} {
		name, value, _ := strings.Cut(setting, " ")
		if err := broker.Admin().ConfigSet(ctx, name, value).Err(); err != nil {
			b.Fatal(err)
		}
	}
	broker.Admin().Do(ctx, "slowlog", "reset")
	var busy, blocked time.Duration
	var exchanges int64
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		want := change()
		calls, took := broker.commandStats(b, "exec")
		start := processorTime(b)
		b.StartTimer()
		s, err := d.Sample(ctx)
		b.StopTimer()
		busy += processorTime(b) - start
		callsAfter, tookAfter := broker.commandStats(b, "exec")
		exchanges += callsAfter - calls
		blocked += tookAfter - took
		if err != nil {
			b.Fatal(err)
		}
		for name, c := range want {
			if got := s.Queues[name]; got.Backlog.N != c.Backlog || got.InFlight.N != c.InFlight || got.Tasks().Err != nil {
				b.Fatalf("queue %s: got %+v, want %+v", name, got, c)
			}
		}
	}
	n := float64(b.N)
	b.ReportMetric(busy.Seconds()/n*100, "core-%")
	b.ReportMetric(float64(exchanges)/n, "exchanges")
	b.ReportMetric(blocked.Seconds()/n*1000, "exec-ms")
	if slow := slowCommands(b, broker); len(slow) > 0 {
		b.ReportMetric(slow[len(slow)-1].Seconds()*1000, "max-cmd-ms")
		b.ReportMetric(slow[len(slow)*99/100].Seconds()*1000, "p99-cmd-ms")
	}
	b.ReportMetric(residentMiB(b), "rss-MiB")
}

// processorTime is what this process has used, user and system.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// slowCommands are the times of the commands that the driver sends, in order.
func slowCommands(b *testing.B, broker *kombuBroker) []time.Duration {
	b.Helper()
	entries, err := broker.Admin().SlowLogGet(context.Background(), -1).Result()
	if err != nil {
		b.Fatal(err)
	}
	var times []time.Duration
	sent := []string{"llen", "exists", "hlen", "zcard", "zrange", "hstrlen", "hmget", "scan", "smembers", "multi", "exec", "role"}
	for _, entry := range entries {
		if slices.Contains(sent, strings.ToLower(entry.Args[0])) {
			times = append(times, entry.Duration)
		}
	}
	slices.Sort(times)
	return times
}

func residentMiB(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, resident float64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * float64(os.Getpagesize()) / (1 << 20)
}
