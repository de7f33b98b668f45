package bench_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// wakeRound is how many targets are woken before all are put to sleep again;
	// leastWakes is how many wakes there are in all, at the least.
	wakeRound  = 20
	leastWakes = 30
	// takeOver is what celery-hpa gets to see that messages, or workers, are gone: a
	// sample a second.
	takeOver = 2500 * time.Millisecond
)

// BenchmarkWake measures the time from when a message is sent to a queue whose workers
// are at zero to when a watch shows that they are to be more, beside that of a bare
// PATCH of a scale, seen by the same watch, in turn; and what the program takes while
// all sleep.
//
//	p50-ms, p99-ms          from the call that sends the message to the watch event
//	p50-×-patch, p99-×-patch  beside a bare PATCH
//	patch-p50-ms, patch-p99-ms  of the bare PATCH
//	core-%, RSS-MiB         of the program while nothing happens
func BenchmarkWake(b *testing.B) {
	for _, kind := range []struct {
		name             string
		open             func(*testing.B) post
		lookout          string
		targets, perEach int
	}{
		{"Redis tells, 1 target", redisPost, "{}", 1, 1},
		{"Redis tells, 100 targets of 100 queues", redisPost, "{}", 100, 100},
		{"Redis tells, 1000 targets", redisPost, "{}", 1000, 1},
		{"Redis is polled, 1 target", redisPost, "{tracking: false}", 1, 1},
		{"RabbitMQ, 1 target", rabbitPost, "{}", 1, 1},
		{"RabbitMQ, 1000 targets", rabbitPost, "{}", 1000, 1},
	} {
		b.Run(kind.name, func(b *testing.B) {
			p := kind.open(b)
			s := layDown(b, p, kind.lookout, kind.targets, kind.perEach)
			s.measureRest(b)
			s.measureWakes(b)
		})
	}
}

// post is a broker and somebody who sends.
type post interface {
	// url is the broker's, declare makes queues known.
	url() string
	declare(b *testing.B, queues []string)
	// send sends a message and returns when it was about to; drop removes all of a
	// queue.
	send(b *testing.B, queue string) time.Time
	drop(b *testing.B, queue string)
}

type redisBroker struct{ *servers.Redis }

func redisPost(b *testing.B) post {
	return redisBroker{servers.StartRedis(b, servers.RedisOptions{})}
}

func (r redisBroker) url() string                  { return r.URL(0) }
func (r redisBroker) declare(*testing.B, []string) {} // they are in the brokers file

func (r redisBroker) send(b *testing.B, queue string) time.Time {
	b.Helper()
	at := time.Now()
	if err := r.Admin().LPush(b.Context(), queue, "a task").Err(); err != nil {
		b.Fatal(err)
	}
	return at
}

func (r redisBroker) drop(b *testing.B, queue string) {
	b.Helper()
	if err := r.Admin().Del(b.Context(), queue).Err(); err != nil {
		b.Fatal(err)
	}
}

type rabbitBroker struct{ *rabbit }

func rabbitPost(b *testing.B) post {
	return rabbitBroker{startRabbit(b, servers.RabbitMQOptions{})}
}

func (r rabbitBroker) url() string { return r.URL("/") }

func (r rabbitBroker) declare(b *testing.B, queues []string) {
	b.Helper()
	for _, q := range queues {
		r.rabbit.declare(b, q, nil)
	}
}

func (r rabbitBroker) send(b *testing.B, queue string) time.Time {
	b.Helper()
	at := time.Now()
	if err := r.channel.PublishWithContext(b.Context(), "", queue, false, false, amqp.Publishing{}); err != nil {
		b.Fatal(err)
	}
	return at
}

func (r rabbitBroker) drop(b *testing.B, queue string) {
	b.Helper()
	if _, err := r.channel.QueuePurge(queue, false); err != nil {
		b.Fatal(err)
	}
}

// measureRest looks at the program while all sleep.
func (s *sleepers) measureRest(b *testing.B) {
	b.Helper()
	time.Sleep(settle)
	before := processorTime(b, s.pid)
	time.Sleep(settle)
	b.ReportMetric(100*(processorTime(b, s.pid)-before).Seconds()/settle.Seconds(), "core-%")
	b.ReportMetric(process{pid: s.pid}.memory(b), "RSS-MiB")
}

// measureWakes wakes targets, one after the other, and patches a scale in turn.
func (s *sleepers) measureWakes(b *testing.B) {
	b.Helper()
	var wakes, patches []time.Duration
	for range max(6, leastWakes/s.targets) {
		chosen := rand.Perm(s.targets)[:min(s.targets, wakeRound)]
		for _, i := range chosen {
			wakes = append(wakes, s.wake(b, i))
			pauseAtRandom()
			patches = append(patches, s.patchReference(b))
			pauseAtRandom()
		}
		for _, i := range chosen {
			s.post.drop(b, s.queues[i][0])
		}
		time.Sleep(takeOver)
		for _, i := range chosen {
			s.scale(b, targetName(i), 0)
		}
		time.Sleep(takeOver)
	}
	slices.Sort(wakes)
	slices.Sort(patches)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		wake, patch := milliseconds(wakes, q.at), milliseconds(patches, q.at)
		b.ReportMetric(wake, q.name+"-ms")
		b.ReportMetric(patch, "patch-"+q.name+"-ms")
		b.ReportMetric(wake/patch, q.name+"-×-patch")
	}
	b.ReportMetric(0, "ns/op")
}

// pauseAtRandom keeps out of step with any poll, and lets the control plane do what
// follows.
func pauseAtRandom() { time.Sleep(time.Duration(60+rand.IntN(50)) * time.Millisecond) }

func milliseconds(sorted []time.Duration, q float64) float64 {
	return float64(sorted[int(q*float64(len(sorted)-1))].Microseconds()) / 1000
}

func targetName(i int) string { return fmt.Sprintf("worker-%d", i) }
