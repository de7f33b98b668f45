package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// impostor is somebody in the place of some workers, each of which executes a task. It
// answers bad the first time that one of them is asked something, and good from then
// on.
type impostor struct {
	line line
	bad  map[string]func(question) []post // by node
	good func(question) post

	asked map[string]bool // by method and node
}

// question is one of remote control to a worker.
type question struct {
	node, method, ticket string
}

// start begins to speak and to answer, until the test ends. What goes wrong fails the
// test.
func (i *impostor) start(t *testing.T) {
	i.asked = map[string]bool{}
	ctx, stop := context.WithCancel(context.Background())
	failures := make(chan error, 2)
	var running sync.WaitGroup
	running.Go(func() { failures <- i.answerAll(ctx) })
	running.Go(func() { failures <- i.beat(ctx) })
	t.Cleanup(func() {
		stop()
		i.line.hangUp()
		running.Wait()
		if err := errors.Join(<-failures, <-failures); err != nil {
			t.Error(err)
		}
	})
}

// beat lets each of them send heartbeats.
func (i *impostor) beat(ctx context.Context) error {
	for ctx.Err() == nil {
		for node := range i.bad {
			event := inJSON(beat(node, map[string]any{"active": 1, "processed": 1}))
			if err := i.line.publish(eventExchange, eventTopic, event); err != nil && ctx.Err() == nil {
				return fmt.Errorf("send a heartbeat: %w", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (i *impostor) answerAll(ctx context.Context) error {
	for text := range i.line.requests {
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
			for _, reply := range i.answer(question{node, request.Method, request.Ticket}) {
				if err := i.line.publish("", request.ReplyTo.RoutingKey, reply); err != nil && ctx.Err() == nil {
					return fmt.Errorf("answer a question: %w", err)
				}
			}
		}
	}
	return nil
}

func (i *impostor) answer(q question) []post {
	bad := i.bad[q.node]
	if bad == nil {
		return nil
	}
	known := i.asked[q.method+q.node]
	i.asked[q.method+q.node] = true
	if known {
		return []post{i.good(q)}
	}
	return bad(q)
}

// line is a connection of workers with their broker.
type line struct {
	// requests are what comes by remote control, until the line is ended.
	requests iter.Seq[[]byte]
	publish  func(exchange, routingKey string, m post) error
	hangUp   func()
}

// dial makes a line.
func (s *site) dial(t *testing.T) line {
	t.Helper()
	if s.redis != nil {
		return s.dialRedis(t)
	}
	return s.dialRabbitMQ(t)
}

func (s *site) dialRedis(t *testing.T) line {
	t.Helper()
	ctx, client := context.Background(), s.redis.Admin()
	heard := client.Subscribe(ctx, "/0.celery.pidbox")
	if _, err := heard.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	messages := heard.Channel()
	return line{
		requests: func(yield func([]byte) bool) {
			for m := range messages {
				var envelope struct{ Body []byte }
				if json.Unmarshal([]byte(m.Payload), &envelope) != nil || !yield(envelope.Body) {
					return
				}
			}
		},
		publish: func(exchange, routingKey string, m post) error {
			if exchange != "" {
				return client.Publish(ctx, "/0."+exchange+"/"+routingKey, m.onRedis(exchange, routingKey)).Err()
			}
			return client.LPush(ctx, routingKey, m.onRedis(exchange, routingKey)).Err()
		},
		hangUp: func() { _ = heard.Close() },
	}
}

func (s *site) dialRabbitMQ(t *testing.T) line {
	t.Helper()
	link, err := amqp.Dial(s.url)
	if err != nil {
		t.Fatal(err)
	}
	channel, err := link.Channel()
	if err != nil {
		t.Fatal(err)
	}
	mailbox, err := channel.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = channel.QueueBind(mailbox.Name, "", "celery.pidbox", false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	messages, err := channel.Consume(mailbox.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return line{
		requests: func(yield func([]byte) bool) {
			for m := range messages {
				if !yield(m.Body) {
					return
				}
			}
		},
		publish: func(exchange, routingKey string, m post) error {
			return channel.PublishWithContext(context.Background(), exchange, routingKey, false, false, m.onRabbitMQ())
		},
		hangUp: func() { _ = link.Close() },
	}
}
