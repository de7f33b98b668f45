package redis_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// watchedQueues are those that a benchmark watches.
func watchedQueues(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("queue-%05d", i)
	}
	return names
}

// BenchmarkLookout takes the time from before a message is pushed until it was told
// of, and read.
func BenchmarkLookout(b *testing.B) {
	for _, queues := range []int{40, 10_000} {
		b.Run(fmt.Sprintf("%d queues", queues), func(b *testing.B) {
			server := servers.StartRedis(b, servers.RedisOptions{})
			ctx := context.Background()
			names := watchedQueues(queues)
			line := openLine(b, redis.Config{URL: server.URL(0)})
			line.count(names...)
			took := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for i := range b.N {
				name := names[i*7919%queues]
				start := time.Now()
				server.Admin().LPush(ctx, name, "m")
				line.awaitTold(name)
				if n := line.count(name)[name]; n != 1 {
					b.Fatalf("%d messages were read, want 1", n)
				}
				took = append(took, time.Since(start))
				b.StopTimer()
				server.Admin().RPop(ctx, name)
				line.awaitTold(name)
				line.count(name)
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
		})
	}
}

// BenchmarkLookoutAtRest watches 10,000 queues in which nothing happens, for 20 s. What
// it takes to read them all, and in memory, here and on the server, is reported too.
func BenchmarkLookoutAtRest(b *testing.B) {
	const rest = 20 * time.Second
	server := servers.StartRedis(b, servers.RedisOptions{})
	names := watchedQueues(10_000)
	for range b.N {
		line := openLine(b, redis.Config{URL: server.URL(0)})
		heap, used := heapBytes(), countOf(b, server, "memory", "used_memory")
		start := time.Now()
		line.count(names...)
		b.ReportMetric(time.Since(start).Seconds()*1000, "read-ms")
		busy, commands := processorTime(b), countOf(b, server, "stats", "total_commands_processed")
		time.Sleep(rest)
		b.ReportMetric((processorTime(b)-busy).Seconds()/rest.Seconds()*100, "core-%")
		b.ReportMetric(float64(countOf(b, server, "stats", "total_commands_processed")-commands)/rest.Seconds(), "commands/s")
		b.ReportMetric(float64(heapBytes()-heap)/(1<<20), "heap-MiB")
		b.ReportMetric(float64(countOf(b, server, "memory", "used_memory")-used)/(1<<20), "server-MiB")
		if err := line.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// heapBytes is what is in use after a collection.
func heapBytes() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
