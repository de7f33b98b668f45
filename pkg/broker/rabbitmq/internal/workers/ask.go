package workers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// maxAsk bounds a question whose context has no deadline.
	maxAsk = time.Minute
	// maxStray bounds the messages that are no answer to the question, late answers to
	// earlier ones for example, that are read while waiting for one.
	maxStray = 1000
)

// repliesInbox is the queue of replies. Those of an earlier question are of no use,
// and while nobody reads, no more than a few are sent to us.
func repliesInbox() server.InboxSettings {
	return server.InboxSettings{
		ConnectionName: "celery-hpa control", Queue: celery.OwnQueuePrefix + "replies." + uuid.NewString(),
		MaxLength: 10_000, MaxBytes: 64 << 20, TTL: 10 * time.Second, Prefetch: 10,
	}
}

// Asker asks the workers of one broker. It is safe for concurrent use.
type Asker struct {
	mu sync.Mutex
	line
	inbox *server.Inbox // nil while there is no connection
}

// NewAsker makes an asker and connects to nothing. There must be one endpoint at
// least.
func NewAsker(broker queue.BrokerRef, endpoints []server.Endpoint) *Asker {
	return &Asker{line: line{doing: fmt.Sprintf("ask the workers of broker %s", broker), needs: rightsToAsk(), endpoints: endpoints}}
}

// Close ends the connection, which takes a second at most.
func (a *Asker) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hangUp()
}

// Ask asks the workers of these names, and waits until each has answered, or ctx is
// done, a minute at most. It returns the answers that came, one of a worker at most,
// also with an error.
func (a *Asker) Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	if len(nodes) == 0 {
		return nil, nil // for Celery, that would be all of them
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	replies, err := a.ask(ctx, method, nodes)
	if err != nil {
		_ = a.hangUp() // the error says why
		return replies, a.explain(err)
	}
	return replies, nil
}

// connect makes a connection for questions if there is none that lives.
func (a *Asker) connect(ctx context.Context) error {
	if a.inbox != nil && !a.inbox.IsClosed() {
		return nil
	}
	_ = a.hangUp()
	inbox, err := a.open(ctx, func(e server.Endpoint) (*server.Inbox, error) {
		return e.OpenInbox(ctx, repliesInbox())
	})
	if err != nil {
		return err
	}
	a.inbox = inbox
	return nil
}

// hangUp ends the connection for questions, if there is one.
func (a *Asker) hangUp() error {
	if a.inbox == nil {
		return nil
	}
	err := a.inbox.Close()
	a.inbox = nil
	return err
}

// ask puts a question and waits for the answers.
func (a *Asker) ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	expires, _ := ctx.Deadline()
	question := monitor.ControlRequest{
		Method: method, Nodes: nodes, Ticket: uuid.NewString(), ReplyTo: a.inbox.Queue(), Expires: expires,
	}
	err := a.inbox.Publish(ctx, celery.ControlExchange, server.Publication{
		Headers: question.Headers(), Body: question.Body(), Expires: expires,
	})
	if errors.Is(err, server.ErrNoExchange) {
		return nil, nil
	}
	if err != nil {
		return nil, untaken(err)
	}
	return collect(ctx, a.inbox, question)
}

// untaken names the usual cause of a question that the broker lets wait.
func untaken(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("the broker has not taken the question, as it does while it is short of memory or disk: %w", err)
}

// collect waits for the answers to a question.
func collect(ctx context.Context, inbox *server.Inbox, question monitor.ControlRequest) ([]monitor.ControlReply, error) {
	awaited := make(map[string]bool, len(question.Nodes))
	for _, node := range question.Nodes {
		awaited[node] = true
	}
	var replies []monitor.ControlReply
	for range len(awaited) + maxStray {
		m, err := inbox.Next(ctx)
		if ctx.Err() != nil {
			return replies, nil //nolint:nilerr // the time is over: who has not answered is silent
		}
		if err != nil {
			return replies, err
		}
		reply, err := monitor.DecodeControlReply(m.ContentType, m.ContentEncoding, m.Ticket, m.Body)
		if err != nil || reply.Ticket != question.Ticket || !awaited[reply.Node] {
			continue
		}
		replies = append(replies, reply)
		if delete(awaited, reply.Node); len(awaited) == 0 {
			break
		}
	}
	return replies, nil
}
