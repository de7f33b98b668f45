package rabbitmq_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// BenchmarkSample takes samples of a virtual host full of queues, one message in
// each. Beside the time of one sample it reports
//
//	core-%         CPU time of this process for one sample a second, of one core
//	broker-core-%  the same of the broker, beyond what it takes when nobody asks
//	p50-ms, max-ms how long a sample took
func BenchmarkSample(b *testing.B) {
	server := servers.StartRabbitMQ(b, servers.RabbitMQOptions{})
	for _, queues := range []int{1000, 2000} {
		for kind, arguments := range map[string]amqp.Table{"classic": nil, "quorum": {"x-queue-type": "quorum"}} {
			if kind == "quorum" && queues > 1000 {
				continue // more than a broker of this size likes
			}
			broker := startCelery(b, server, arguments)
			broker.fill(b, queues)
			b.Run(fmt.Sprintf("%d %s queues", queues, kind), func(b *testing.B) { broker.measure(b, queues) })
		}
	}
}

func (b *celeryBroker) fill(t testing.TB, queues int) {
	t.Helper()
	for i := range queues {
		b.Publish(t, fmt.Sprintf("queue-%04d", i), brokertest.Message{})
	}
}

func (b *celeryBroker) measure(bench *testing.B, queues int) {
	b.cfg.Timeout = 10 * time.Second
	d := b.NewDriver(bench, brokertest.RightPassword)
	want := map[string]brokertest.Counts{"queue-0000": {Backlog: 1}}
	brokertest.Expect(bench, b, d, want)
	idle := b.idleTime(bench)
	var times []time.Duration
	ours, theirs := processorTime(bench), b.processorTime(bench)
	began := time.Now()
	for bench.Loop() {
		start := time.Now()
		s, err := d.Sample(bench.Context())
		times = append(times, time.Since(start))
		if err != nil || len(s.Queues) != queues {
			bench.Fatalf("%d queues: %v", len(s.Queues), err)
		}
	}
	n := float64(bench.N)
	ours, theirs = processorTime(bench)-ours, b.processorTime(bench)-theirs-time.Duration(idle*float64(time.Since(began)))
	slices.Sort(times)
	bench.ReportMetric(ours.Seconds()/n*100, "core-%")
	bench.ReportMetric(theirs.Seconds()/n*100, "broker-core-%")
	bench.ReportMetric(times[len(times)/2].Seconds()*1000, "p50-ms")
	bench.ReportMetric(times[len(times)-1].Seconds()*1000, "max-ms")
}

// idleTime is what share of a core the broker takes while nobody asks.
func (b *celeryBroker) idleTime(bench *testing.B) float64 {
	const while = 2 * time.Second
	start := b.processorTime(bench)
	time.Sleep(while)
	return (b.processorTime(bench) - start).Seconds() / while.Seconds()
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

// processorTime is what the broker has used: fields 14 and 15 of its stat, in
// hundredths of a second (proc(5)).
func (b *celeryBroker) processorTime(bench *testing.B) time.Duration {
	bench.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.PID()))
	if err != nil {
		bench.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			bench.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
