package bench_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// crowdSize is how many workers there are, each with a heartbeat every beatInterval.
	crowdSize    = 1000
	beatInterval = 2 * time.Second
	// crowdSlots is how many tasks each executes at the most.
	crowdSlots = 4
)

// crowd speaks, and answers remote control, in the place of many workers.
type crowd struct {
	medium medium

	mu      sync.Mutex
	workers map[string]*simulated // by node
	order   []*simulated
}

// simulated is a worker that takes tasks of the queue celery.
type simulated struct {
	node                   string
	pid, active, processed int
}

// medium is a connection of workers with their broker.
type medium struct {
	// requests are what comes by remote control, until the medium is closed.
	requests iter.Seq[[]byte]
	// publish sends a body of JSON to an exchange; to the one without a name, it is a
	// reply with a ticket.
	publish func(exchange, routingKey, ticket string, body []byte) error
	close   func()
}

func newCrowd(m medium) *crowd {
	c := &crowd{medium: m, workers: map[string]*simulated{}}
	for i := range crowdSize {
		w := &simulated{node: fmt.Sprintf("celery@worker-7d4f9c6b58-%05d", i), pid: 1 + i}
		c.workers[w.node], c.order = w, append(c.order, w)
	}
	return c
}

// begin lets the crowd speak and answer until the benchmark ends.
func (c *crowd) begin(b *testing.B) {
	ctx, stop := context.WithCancel(context.Background())
	failures := make(chan error, 2)
	var running sync.WaitGroup
	running.Go(func() { failures <- c.speak(ctx) })
	running.Go(func() { failures <- c.answer(ctx) })
	b.Cleanup(func() {
		stop()
		c.medium.close()
		running.Wait()
		for range 2 {
			if err := <-failures; err != nil {
				b.Error(err)
			}
		}
	})
}

// speak sends each worker's heartbeats, evenly over time.
func (c *crowd) speak(ctx context.Context) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for due := int(time.Since(began) * crowdSize / beatInterval); sent < due; sent++ {
			body := c.move(sent % crowdSize)
			if err := c.medium.publish("celeryev", "worker.heartbeat", "", body); err != nil && ctx.Err() == nil {
				return fmt.Errorf("send a heartbeat: %w", err)
			}
		}
	}
}

// move lets a worker end some tasks and take others, and returns its heartbeat as
// Celery 5.6.3 writes it.
func (c *crowd) move(i int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.order[i]
	w.active = rand.N(crowdSlots + 1)
	w.processed += 1 + w.active
	return fmt.Appendf(nil, `{"hostname": %q, "utcoffset": 0, "pid": %d, "clock": %d, "freq": 2.0, "active": %d, "processed": %d, `+
		`"loadavg": [0.64, 0.89, 1.07], "sw_ident": "py-celery", "sw_ver": "5.6.3", "sw_sys": "Linux", "timestamp": %.6f, "type": "worker-heartbeat"}`,
		w.node, w.pid, 63+w.processed, w.active, w.processed, float64(time.Now().UnixMicro())/1e6)
}

// answer answers remote control for all that are asked.
func (c *crowd) answer(ctx context.Context) error {
	for text := range c.medium.requests {
		var request struct {
			Method, Ticket string
			Destination    []string
			ReplyTo        struct {
				RoutingKey string `json:"routing_key"`
			} `json:"reply_to"`
		}
		if err := json.Unmarshal(text, &request); err != nil {
			return fmt.Errorf("a request of remote control: %w", err)
		}
		for _, node := range request.Destination {
			body := c.reply(request.Method, node)
			if err := c.medium.publish("", request.ReplyTo.RoutingKey, request.Ticket, body); err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer remote control: %w", err)
			}
		}
	}
	return nil
}

// reply is what a worker answers, about as long as Celery's.
func (c *crowd) reply(method, node string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.workers[node]
	var content string
	switch method {
	case "active":
		tasks := make([]string, w.active)
		for i := range tasks {
			tasks[i] = w.task()
		}
		content = "[" + strings.Join(tasks, ", ") + "]"
	case "active_queues":
		content = `[{"name": "celery", "exchange": {"name": "celery", "type": "direct", "arguments": null, "durable": true, "passive": false, ` +
			`"auto_delete": false, "delivery_mode": null, "no_declare": false}, "routing_key": "celery", "queue_arguments": null, "durable": true}]`
	case "stats":
		content = fmt.Sprintf(`{"total": {"app.pay": %d}, "pid": %d, "clock": "63", "uptime": 4711, "pool": {"max-concurrency": %d, "processes": [8, 9, 10, 11]}, "more": %q}`,
			w.processed, w.pid, crowdSlots, strings.Repeat("x", 1500))
	}
	return fmt.Appendf(nil, `{%q: %s}`, node, content)
}

// task is one that it executes; each time another.
func (w *simulated) task() string {
	return fmt.Sprintf(`{"id": "%08x-0000-4000-8000-%012x", "name": "app.pay", "args": [1, "two"], "kwargs": {}, "type": "app.pay", "hostname": %q, `+
		`"time_start": 1795606940.5, "acknowledged": true, "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": false}, "worker_pid": 8}`,
		w.pid, rand.N(1<<40), w.node)
}

// joinRedis starts a Redis. It returns the broker in a brokers file, too.
func joinRedis(b *testing.B) (string, medium) {
	b.Helper()
	server := servers.StartRedis(b, servers.RedisOptions{})
	ctx, client := context.Background(), server.Admin()
	heard := client.Subscribe(ctx, "/0.celery.pidbox")
	if _, err := heard.Receive(ctx); err != nil {
		b.Fatal(err)
	}
	messages := heard.Channel()
	return fmt.Sprintf("url: {value: %q}, queues: [{name: celery}]", server.URL(0)), medium{
		requests: func(yield func([]byte) bool) {
			for m := range messages {
				var envelope struct{ Body []byte }
				if json.Unmarshal([]byte(m.Payload), &envelope) != nil || !yield(envelope.Body) {
					return
				}
			}
		},
		publish: func(exchange, routingKey, ticket string, body []byte) error {
			message := enveloped(exchange, routingKey, ticket, body)
			if exchange == "" {
				return client.LPush(ctx, routingKey, message).Err()
			}
			return client.Publish(ctx, "/0."+exchange+"/"+routingKey, message).Err()
		},
		close: func() { _ = heard.Close() },
	}
}

// enveloped is a message in the envelope in which it goes through Redis.
func enveloped(exchange, routingKey, ticket string, body []byte) []byte {
	return fmt.Appendf(nil, `{"body": %q, "content-encoding": "utf-8", "content-type": "application/json", "headers": {"ticket": %q, "clock": 63}, `+
		`"properties": {"delivery_mode": 1, "delivery_info": {"exchange": %q, "routing_key": %q}, "priority": 0, "body_encoding": "base64", `+
		`"delivery_tag": "9c3ad8cb-6a3a-4c53-a5b5-%012x"}}`, base64.StdEncoding.EncodeToString(body), ticket, exchange, routingKey, rand.N(1<<47))
}

// joinRabbitMQ starts a RabbitMQ with the exchanges that workers have declared.
func joinRabbitMQ(b *testing.B) (string, medium) {
	b.Helper()
	r := startRabbit(b, servers.RabbitMQOptions{})
	r.declare(b, "celery", nil)
	link, err := amqp.Dial(r.URL("/"))
	if err != nil {
		b.Fatal(err)
	}
	channel, err := link.Channel()
	if err != nil {
		b.Fatal(err)
	}
	messages, err := consumeRequests(channel)
	if err != nil {
		b.Fatal(err)
	}
	return r.spec() + ", queues: [{name: celery}]", medium{
		requests: func(yield func([]byte) bool) {
			for m := range messages {
				if !yield(m.Body) {
					return
				}
			}
		},
		publish: func(exchange, routingKey, ticket string, body []byte) error {
			return channel.PublishWithContext(context.Background(), exchange, routingKey, false, false, amqp.Publishing{
				ContentType: "application/json", ContentEncoding: "utf-8", Headers: amqp.Table{"ticket": ticket, "clock": int64(63)}, Body: body,
			})
		},
		close: func() { _ = link.Close() },
	}
}

func consumeRequests(channel *amqp.Channel) (<-chan amqp.Delivery, error) {
	if err := channel.ExchangeDeclare("celeryev", "topic", true, false, false, false, nil); err != nil {
		return nil, err
	}
	if err := channel.ExchangeDeclare("celery.pidbox", "fanout", false, false, false, false, nil); err != nil {
		return nil, err
	}
	mailbox, err := channel.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := channel.QueueBind(mailbox.Name, "", "celery.pidbox", false, nil); err != nil {
		return nil, err
	}
	return channel.Consume(mailbox.Name, "", true, true, false, false, nil)
}
