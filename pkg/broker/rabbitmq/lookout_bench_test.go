package rabbitmq_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// The pace of BenchmarkLookout: one read each 50 ms, or, if there are many queues,
// 5,000 of them a second.
const (
	benchInterval = 50 * time.Millisecond
	benchBudget   = 5000
)

// BenchmarkLookout reads queues, at the pace of a lookout. It reports
//
//	core-%         CPU time of this process, of one core
//	broker-core-%  the same of the broker, beyond what it takes when nobody asks
//	interval-ms    the time from one read to the next
//	p50-ms, p99-ms, max-ms how long a read took
//
// With -benchtime 20s it has 400 reads of few queues, and 100 of 1,000.
func BenchmarkLookout(b *testing.B) {
	server := servers.StartRabbitMQ(b, servers.RabbitMQOptions{})
	for _, c := range []struct {
		kind            string
		arguments       amqp.Table
		queues, missing int
	}{
		{"classic", nil, 1, 0},
		{"classic", nil, 100, 0},
		{"classic", nil, 1000, 0},
		{"classic", nil, 10_000, 0},
		{"missing", nil, 1, 1},
		{"half missing", nil, 1000, 500},
		{"quorum", amqp.Table{"x-queue-type": "quorum"}, 100, 0},
		{"quorum", amqp.Table{"x-queue-type": "quorum"}, 1000, 0},
	} {
		b.Run(fmt.Sprintf("%d queues, %s", c.queues, c.kind), func(b *testing.B) {
			broker := startCelery(b, server, c.arguments)
			broker.measureLookout(b, broker.declareMany(b, c.queues, c.missing))
		})
	}
}

// declareMany declares queues but the first of them. They are deleted one by one when
// the benchmark ends: the management API gives up on a virtual host of so many.
func (b *celeryBroker) declareMany(bench *testing.B, queues, missing int) []string {
	bench.Helper()
	b.cfg.Timeout = patience
	names := make([]string, queues)
	for i := range names {
		names[i] = fmt.Sprintf("queue-%05d", i)
		if i >= missing {
			b.Declare(bench, names[i])
		}
	}
	bench.Cleanup(func() {
		for _, name := range names {
			b.Delete(bench, name)
		}
	})
	return names
}

func (b *celeryBroker) measureLookout(bench *testing.B, names []string) {
	line := openLine(bench, b.lookout(bench))
	idle := b.idleTime(bench)
	for range 3 {
		read(bench, line, names...)
	}
	interval := max(benchInterval, time.Duration(len(names))*time.Second/benchBudget)
	var times []time.Duration
	ours, theirs := processorTime(bench), b.processorTime(bench)
	began := time.Now()
	for bench.Loop() {
		start := time.Now()
		if _, err := line.Read(bench.Context(), names); err != nil {
			bench.Fatal(err)
		}
		times = append(times, time.Since(start))
		time.Sleep(time.Until(start.Add(interval)))
	}
	took := time.Since(began)
	ours, theirs = processorTime(bench)-ours, b.processorTime(bench)-theirs-time.Duration(idle*float64(took))
	slices.Sort(times)
	bench.ReportMetric(0, "ns/op") // it is the interval
	bench.ReportMetric(ours.Seconds()/took.Seconds()*100, "core-%")
	bench.ReportMetric(theirs.Seconds()/took.Seconds()*100, "broker-core-%")
	bench.ReportMetric(interval.Seconds()*1000, "interval-ms")
	for share, unit := range map[int]string{50: "p50-ms", 99: "p99-ms", 100: "max-ms"} {
		bench.ReportMetric(times[(len(times)-1)*share/100].Seconds()*1000, unit)
	}
}

// BenchmarkNotice publishes a message at some time, and reports how long it takes until
// a lookout at its pace has read it.
//
//	p50-ms, p99-ms, max-ms from the broker's confirmation to the end of the read
func BenchmarkNotice(b *testing.B) {
	server := servers.StartRabbitMQ(b, servers.RabbitMQOptions{})
	for _, queues := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d queues", queues), func(b *testing.B) {
			broker := startCelery(b, server, nil)
			broker.measureNotice(b, broker.declareMany(b, queues, 0))
		})
	}
}

func (b *celeryBroker) measureNotice(bench *testing.B, names []string) {
	line, channel := openLine(bench, b.lookout(bench)), b.channel(bench)
	check(bench, channel.Confirm(false))
	type publication struct {
		at  time.Time
		err error
	}
	published := make(chan publication, 1)
	var times []time.Duration
	for n := 0; bench.Loop(); n++ {
		name := names[n*7%len(names)]
		interval := max(benchInterval, time.Duration(len(names))*time.Second/benchBudget)
		next := time.Now()
		time.AfterFunc(interval+time.Duration(n*37%100)*interval/100, func() {
			confirm, err := channel.PublishWithDeferredConfirm("", name, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
			if err == nil {
				confirm.Wait()
			}
			published <- publication{time.Now(), err}
		})
		for i := slices.Index(names, name); ; {
			counts, err := line.Read(bench.Context(), names)
			if err != nil {
				bench.Fatal(err)
			}
			if counts[i].N > 0 {
				break
			}
			next = next.Add(interval)
			time.Sleep(time.Until(next))
		}
		seen := time.Now()
		sent := <-published
		check(bench, sent.err)
		times = append(times, max(0, seen.Sub(sent.at)))
		b.Purge(bench, name)
	}
	slices.Sort(times)
	bench.ReportMetric(0, "ns/op")
	for share, unit := range map[int]string{50: "p50-ms", 99: "p99-ms", 100: "max-ms"} {
		bench.ReportMetric(times[(len(times)-1)*share/100].Seconds()*1000, unit)
	}
}
