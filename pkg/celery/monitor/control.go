package monitor

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// maxReply bounds a reply to remote control, in bytes: a hundred tasks with
	// arguments of 10 kB each.
	maxReply = 1 << 20
	// maxTasks bounds the tasks of one worker that are told apart.
	maxTasks = 10_000
	// maxServed bounds the queues that one worker serves.
	maxServed = 10_000
	// maxTaskID bounds a task's id, in bytes. Celery's have 36.
	maxTaskID = 255
	// maxSlots bounds how many tasks a worker may say to execute at once.
	maxSlots = 1_000_000
)

// ErrReply says that a message is no reply to remote control that can be
// understood. It quotes nothing of the message.
var ErrReply = errors.New("no reply of a worker to remote control")

// Method is a question of remote control, none of which changes a worker.
type Method string

// The questions.
const (
	// MethodActive asks for the tasks that execute.
	MethodActive Method = "active"
	// MethodActiveQueues asks for the queues that are consumed from.
	MethodActiveQueues Method = "active_queues"
	// MethodStats asks for the size of the pool, among much else.
	MethodStats Method = "stats"
)

// ControlRequest is a question to some workers.
type ControlRequest struct {
	Method Method
	// Nodes are the names of the workers that are to answer; others pass over the
	// message.
	Nodes []string
	// Ticket is what the replies will carry, a UUID.
	Ticket string
	// ReplyTo is the name of the queue for the replies. They come through the
	// anonymous exchange, so that it needs no binding.
	ReplyTo string
	// Expires is when the question is of no more interest. Workers answer later, too.
	Expires time.Time
}

// Body is the request as the body of a message, in JSON.
func (r ControlRequest) Body() []byte {
	text, _ := json.Marshal(map[string]any{ // of strings alone: cannot fail
		"method": r.Method, "arguments": map[string]any{}, "destination": r.Nodes,
		"pattern": nil, "matcher": nil, "ticket": r.Ticket,
		"reply_to": map[string]string{"exchange": "", "routing_key": r.ReplyTo},
	})
	return text
}

// Headers are the headers of the message. The logical clock (kombu's LamportClock)
// is that of somebody who has heard nothing.
func (r ControlRequest) Headers() map[string]any {
	return map[string]any{"clock": int64(1), "expires": float64(r.Expires.UnixMilli()) / 1000}
}

// Published is the request as it is published on Redis: in the envelope of kombu's
// virtual transports.
func (r ControlRequest) Published() []byte {
	text, _ := json.Marshal(map[string]any{ // cannot fail
		"body": base64.StdEncoding.EncodeToString(r.Body()), "content-encoding": "utf-8", "content-type": "application/json",
		"headers": r.Headers(),
		"properties": map[string]any{
			"delivery_mode": 1, "priority": 0, "body_encoding": "base64", "delivery_tag": r.Ticket,
			"delivery_info": map[string]string{"exchange": celery.ControlExchange, "routing_key": ""},
		},
	})
	return text
}

// ControlReply is the answer of one worker, of which only what was asked for is
// kept: arguments of tasks, for example, are never decoded.
type ControlReply struct {
	// Node is the worker that answers, Ticket the question that it answers.
	Node, Ticket string
	// Content is what Active, Queues or Slots understand.
	content json.RawMessage
}

// DecodeControlReply reads a reply as RabbitMQ delivers it; ticket is the header of
// that name. Every error wraps ErrReply.
func DecodeControlReply(contentType, contentEncoding, ticket string, body []byte) (ControlReply, error) {
	if len(body) > maxReply {
		return ControlReply{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrReply, len(body), maxReply)
	}
	if contentType != "application/json" {
		return ControlReply{}, fmt.Errorf("%w: it is not JSON (setting control_exchange's serializer)", ErrReply)
	}
	if encoding := strings.ToLower(contentEncoding); encoding != "" && encoding != "utf-8" {
		return ControlReply{}, fmt.Errorf("%w: its encoding is not utf-8", ErrReply)
	}
	var contents map[string]json.RawMessage
	if json.Unmarshal(body, &contents) != nil || len(contents) != 1 {
		return ControlReply{}, fmt.Errorf("%w: its body is not that of one worker", ErrReply)
	}
	for node, content := range contents {
		if !isNode(node) {
			break
		}
		return ControlReply{Node: node, Ticket: ticket, content: content}, nil
	}
	return ControlReply{}, fmt.Errorf("%w: it names no node of the form name@host", ErrReply)
}

// DecodeListedReply reads a reply as Redis holds it in a list: within the envelope
// of kombu's virtual transports.
func DecodeListedReply(message []byte) (ControlReply, error) {
	if len(message) > 2*maxReply { // base64, and the envelope
		return ControlReply{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrReply, len(message), 2*maxReply)
	}
	m, err := openEnvelope(message)
	if err != nil {
		return ControlReply{}, fmt.Errorf("%w: %w", ErrReply, err)
	}
	return DecodeControlReply(m.contentType, m.contentEncoding, m.ticket, m.body)
}

// ActiveTask is a task that executes. Nothing is kept of what it executes with.
type ActiveTask struct {
	// ID is the task's.
	ID string
	// Exchange and RoutingKey are those that the message was published with. With
	// the anonymous exchange, which Celery uses, the routing key is the queue.
	Exchange, RoutingKey string
	// Acknowledged tells whether the broker has forgotten the message already
	// (early acknowledgement).
	Acknowledged bool
}

// Active is the answer to MethodActive. A task without an id of sensible length is
// an error: it could not be told from others.
func (r ControlReply) Active() ([]ActiveTask, error) {
	var listed []struct {
		ID           string `json:"id"`
		Acknowledged bool   `json:"acknowledged"`
		DeliveryInfo struct {
			Exchange   string `json:"exchange"`
			RoutingKey string `json:"routing_key"`
		} `json:"delivery_info"`
	}
	if json.Unmarshal(r.content, &listed) != nil || listed == nil {
		return nil, fmt.Errorf("%w: it is no list of tasks", ErrReply)
	}
	if len(listed) > maxTasks {
		return nil, fmt.Errorf("%w: it lists %d tasks, more than %d", ErrReply, len(listed), maxTasks)
	}
	tasks := make([]ActiveTask, 0, len(listed))
	for _, t := range listed {
		if t.ID == "" || len(t.ID) > maxTaskID {
			return nil, fmt.Errorf("%w: it lists a task whose id has %d bytes", ErrReply, len(t.ID))
		}
		tasks = append(tasks, ActiveTask{
			ID: t.ID, Acknowledged: t.Acknowledged,
			Exchange: t.DeliveryInfo.Exchange, RoutingKey: t.DeliveryInfo.RoutingKey,
		})
	}
	return tasks, nil
}

// ServedQueue is a queue that a worker consumes from, with what it is bound to.
type ServedQueue struct {
	Name, Exchange, RoutingKey string
}

// Queues is the answer to MethodActiveQueues. None is a valid answer.
func (r ControlReply) Queues() ([]ServedQueue, error) {
	var listed []struct {
		Name       string `json:"name"`
		RoutingKey string `json:"routing_key"`
		Exchange   struct {
			Name string `json:"name"`
		} `json:"exchange"`
	}
	if json.Unmarshal(r.content, &listed) != nil || listed == nil {
		return nil, fmt.Errorf("%w: it is no list of queues", ErrReply)
	}
	if len(listed) > maxServed {
		return nil, fmt.Errorf("%w: it lists %d queues, more than %d", ErrReply, len(listed), maxServed)
	}
	queues := make([]ServedQueue, 0, len(listed))
	for _, q := range listed {
		if q.Name == "" {
			return nil, fmt.Errorf("%w: it lists a queue without a name", ErrReply)
		}
		queues = append(queues, ServedQueue{Name: q.Name, Exchange: q.Exchange.Name, RoutingKey: q.RoutingKey})
	}
	return queues, nil
}

// Slots is the answer to MethodStats: how many tasks the worker executes at once, at
// the most. With --autoscale the size of the pool is the least.
func (r ControlReply) Slots() (int64, error) {
	var stats struct {
		Pool struct {
			MaxConcurrency celery.Number `json:"max-concurrency"`
		} `json:"pool"`
		Autoscaler struct {
			Max celery.Number `json:"max"`
		} `json:"autoscaler"`
	}
	if json.Unmarshal(r.content, &stats) != nil {
		return 0, fmt.Errorf("%w: it is no statistics", ErrReply)
	}
	slots := stats.Pool.MaxConcurrency
	if stats.Autoscaler.Max.Known {
		slots = stats.Autoscaler.Max
	}
	if !slots.Known || slots.N > maxSlots {
		return 0, fmt.Errorf("%w: its statistics do not tell the size of the pool", ErrReply)
	}
	return slots.N, nil
}
