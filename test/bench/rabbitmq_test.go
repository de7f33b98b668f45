package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// rabbit is a RabbitMQ and somebody who publishes and takes.
type rabbit struct {
	*servers.RabbitMQ
	channel *amqp.Channel
}

func startRabbit(b *testing.B, options servers.RabbitMQOptions) *rabbit {
	b.Helper()
	r := &rabbit{RabbitMQ: servers.StartRabbitMQ(b, options)}
	r.connect(b)
	return r
}

func (r *rabbit) connect(b *testing.B) {
	b.Helper()
	link, err := amqp.Dial(r.URL("/"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = link.Close() })
	if r.channel, err = link.Channel(); err != nil {
		b.Fatal(err)
	}
	if err := r.channel.Confirm(false); err != nil {
		b.Fatal(err)
	}
}

func (r *rabbit) declare(b *testing.B, name string, arguments amqp.Table) {
	b.Helper()
	if _, err := r.channel.QueueDeclare(name, true, false, false, false, arguments); err != nil {
		b.Fatal(err)
	}
}

func (r *rabbit) publish(b *testing.B, name string) {
	b.Helper()
	confirm, err := r.channel.PublishWithDeferredConfirmWithContext(b.Context(), "", name, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
	if err != nil || !confirm.Wait() {
		b.Fatalf("publish to %s: %v", name, err)
	}
}

func (r *rabbit) take(b *testing.B, name string) (tag uint64) {
	b.Helper()
	message, taken, err := r.channel.Get(name, false)
	if err != nil || !taken {
		b.Fatalf("take from %s: %t, %v", name, taken, err)
	}
	return message.DeliveryTag
}

func (r *rabbit) acknowledge(b *testing.B, tag uint64) {
	b.Helper()
	if err := r.channel.Ack(tag, false); err != nil {
		b.Fatalf("acknowledge: %v", err)
	}
}

// spec is the broker in a brokers file. It has a password that is no secret.
func (r *rabbit) spec() string {
	_, port, _ := net.SplitHostPort(r.Address())
	return fmt.Sprintf("url: {value: 'amqp://127.0.0.1:%s//'}, rabbitmq: {managementURL: '%s'}", port, r.ManagementURL())
}

// local is the program in this process, asked over HTTP.
type local struct{ address string }

func runLocal(b *testing.B, spec string) local {
	b.Helper()
	brokers := filepath.Join(b.TempDir(), "brokers.yaml")
	document := "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: bench}\nspec: {" + spec + "}\n"
	if err := os.WriteFile(brokers, []byte(document), 0o600); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	a, err := app.New(ctx, app.Options{BrokersFile: brokers, Local: true, Listen: "127.0.0.1:0", Version: "bench", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		<-done
	})
	return local{a.Addr().String()}
}

// value asks for a metric of a queue, -1 if it is not known. At is the count's own
// time, in whole seconds.
func (l local) value(b *testing.B, metric, queue string) (n int64) {
	b.Helper()
	at := "http://" + l.address + "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/" + metric + "?labelSelector=" + url.QueryEscape("queue="+queue)
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, at, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	var list struct{ Items []struct{ Value string } }
	if json.Unmarshal(text, &list) != nil || len(list.Items) != 1 {
		return -1
	}
	if _, err := fmt.Sscan(list.Items[0].Value, &n); err != nil {
		return -1
	}
	return n
}

// until waits for a value and returns how long that took.
func (l local) until(b *testing.B, metric, queue string, want int64) time.Duration {
	b.Helper()
	began := time.Now()
	for l.value(b, metric, queue) != want {
		if time.Since(began) > time.Minute {
			b.Fatalf("%s of %s is not %d after a minute", metric, queue, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(began)
}

// BenchmarkRabbitMQFreshness changes what a queue holds at a random moment, and
// measures until the metrics API shows it, at the default interval of 1 s: how old
// a number is at its oldest, half of the times and at the most.
//
//	backlog-p50-s, backlog-max-s    a message was published
//	taken-p50-s, taken-max-s        in flight, after a message was published and taken at once
//	finished-p50-s, finished-max-s  in flight, after it was acknowledged
//
// The quorum queues tell their numbers every 5 s, as RabbitMQ has it, or every 3.
func BenchmarkRabbitMQFreshness(b *testing.B) {
	for _, tick := range []time.Duration{5 * time.Second, 3 * time.Second} {
		r := startRabbit(b, servers.RabbitMQOptions{QuorumTick: tick})
		r.declare(b, "classic", nil)
		r.declare(b, "quorum", amqp.Table{"x-queue-type": "quorum"})
		l := runLocal(b, r.spec())
		for _, queue := range []string{"classic", "quorum"} {
			b.Run(fmt.Sprintf("%s, %s", queue, tick), func(b *testing.B) { measureFreshness(b, r, l, queue, tick) })
		}
	}
}

func measureFreshness(b *testing.B, r *rabbit, l local, queue string, tick time.Duration) {
	times := map[string][]time.Duration{}
	changes := func(what, metric string, to int64) {
		times[what] = append(times[what], l.until(b, metric, queue, to))
		time.Sleep(tick + rand.N(tick)) // the queue has told it, too
	}
	l.until(b, "celery_queue_in_flight", queue, 0)
	for range b.N {
		r.publish(b, queue)
		changes("backlog", "celery_queue_backlog", 1)
		r.acknowledge(b, r.take(b, queue))
		l.until(b, "celery_queue_in_flight", queue, 0)
		time.Sleep(tick + rand.N(tick))
		r.publish(b, queue)
		tag := r.take(b, queue)
		changes("taken", "celery_queue_in_flight", 1)
		r.acknowledge(b, tag)
		changes("finished", "celery_queue_in_flight", 0)
	}
	for what, of := range times {
		reportTimes(b, what, of)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRabbitMQReturn stops the broker until its counts are too old, starts it
// again, and measures from when it takes connections until the metrics API shows
// a fresh count. Zero must not be seen in between.
func BenchmarkRabbitMQReturn(b *testing.B) {
	r := startRabbit(b, servers.RabbitMQOptions{})
	r.declare(b, "celery", nil)
	r.publish(b, "celery")
	l := runLocal(b, r.spec())
	var times []time.Duration
	for range b.N {
		l.until(b, "celery_queue_tasks", "celery", 1)
		r.Stop(b)
		l.until(b, "celery_queue_tasks", "celery", -1)
		r.Start(b) // returns when it takes connections
		times = append(times, l.until(b, "celery_queue_tasks", "celery", 1))
	}
	reportTimes(b, "fresh", times)
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRabbitMQQueues measures the program as it is shipped with many queues,
// sampled once a second, and what the broker takes for it beyond what it takes by
// itself.
func BenchmarkRabbitMQQueues(b *testing.B) {
	for _, load := range []struct {
		kind   string
		queues int
	}{{"classic", 1000}, {"quorum", 1000}, {"classic", 2000}} {
		b.Run(fmt.Sprintf("%d %s", load.queues, load.kind), func(b *testing.B) {
			r := startRabbit(b, servers.RabbitMQOptions{})
			for i := range load.queues {
				r.declare(b, fmt.Sprintf("queue-%04d", i), amqp.Table{"x-queue-type": load.kind})
			}
			time.Sleep(settle / 2)
			before := processorTime(b, r.PID())
			time.Sleep(settle)
			idle := processorTime(b, r.PID()) - before
			pid, binary := serve(b, r.spec())
			before = processorTime(b, r.PID())
			time.Sleep(settle)
			busy := processorTime(b, r.PID()) - before
			report(b, pid, binary)
			b.ReportMetric(100*(busy-idle).Seconds()/settle.Seconds(), "broker-core-%")
			b.ReportMetric(100*idle.Seconds()/settle.Seconds(), "idle-broker-core-%")
		})
	}
}

func reportTimes(b *testing.B, what string, times []time.Duration) {
	b.Helper()
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds(), what+"-p50-s")
	b.ReportMetric(times[len(times)-1].Seconds(), what+"-max-s")
}
