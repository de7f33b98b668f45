package faults_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// post is a message as Celery gives it to its broker.
type post struct {
	kind, encoding string
	headers        map[string]any
	body           []byte
}

func inJSON(body []byte) post { return post{kind: "application/json", encoding: "utf-8", body: body} }

// onRedis is the message in the envelope in which it goes through Redis.
func (p post) onRedis(exchange, routingKey string) []byte {
	headers := p.headers
	if headers == nil {
		headers = map[string]any{}
	}
	text, err := json.Marshal(map[string]any{
		"body": base64.StdEncoding.EncodeToString(p.body), "content-type": p.kind, "content-encoding": p.encoding, "headers": headers,
		"properties": map[string]any{
			"delivery_mode": 1, "priority": 0, "body_encoding": "base64", "delivery_tag": "x",
			"delivery_info": map[string]any{"exchange": exchange, "routing_key": routingKey},
		},
	})
	if err != nil {
		panic(err) // a mistake of a test
	}
	return text
}

func (p post) onRabbitMQ() amqp.Publishing {
	return amqp.Publishing{ContentType: p.kind, ContentEncoding: p.encoding, Headers: p.headers, Body: p.body}
}

const (
	eventExchange = "celeryev"
	eventTopic    = "worker.heartbeat"
)

// say publishes an event as a worker does, and returns when the broker has it.
func (s *site) say(t *testing.T, event post) {
	t.Helper()
	if s.redis != nil {
		s.sayRaw(t, event.onRedis(eventExchange, eventTopic))
		return
	}
	confirm, err := s.rabbitMQ.worker.PublishWithDeferredConfirmWithContext(t.Context(), eventExchange, eventTopic, false, false, event.onRabbitMQ())
	if err != nil || !confirm.Wait() {
		t.Fatalf("publish an event: %v", err)
	}
}

// sayRaw publishes what should be an event in its envelope, on Redis.
func (s *site) sayRaw(t *testing.T, message []byte) {
	t.Helper()
	if err := s.redis.Admin().Publish(context.Background(), "/0."+eventExchange+"/"+eventTopic, message).Err(); err != nil {
		t.Fatalf("publish an event: %v", err)
	}
}

// torn are envelopes that are none. RabbitMQ has no envelopes.
func (s *site) torn() map[string][]byte {
	if s.redis == nil {
		return nil
	}
	good := string(inJSON(beat("celery@"+marker, nil)).onRedis(eventExchange, eventTopic))
	return map[string][]byte{
		"an empty message":        {},
		"no envelope":             []byte(marker),
		"an event without one":    beat("celery@"+marker, nil),
		"half an envelope":        []byte(good[:len(good)/2]),
		"a body that is no text":  []byte(strings.Replace(good, `"body":"`, `"body":["`+marker+`"],"x":"`, 1)),
		"a body that is no code":  []byte(strings.Replace(good, `"body":"`, `"body":"%`+marker, 1)),
		"a deep envelope":         []byte(strings.Replace(good, `"headers":{}`, `"headers":`+strings.Repeat("[", 12_000), 1)),
		"an envelope of 3 MB":     []byte(strings.Replace(good, `"headers":{}`, `"headers":{"`+strings.Repeat(marker, 3<<20/len(marker))+`":1}`, 1)),
		"compressed, in a number": []byte(strings.Replace(good, `"headers":{}`, `"headers":{"compression":1}`, 1)),
	}
}
