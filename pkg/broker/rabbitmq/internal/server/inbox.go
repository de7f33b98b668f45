package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// inboxHeartbeat is in how much time each side of an inbox shows that it lives: the
// server after four seconds at the latest. The client library closes a connection that
// has been silent for one and a half times as long (connection.go, heartbeater), which
// is six seconds, the server after two to three times.
const inboxHeartbeat = 4 * time.Second

var (
	// ErrNoExchange says that the broker has no exchange of that name.
	ErrNoExchange = errors.New("the broker has no such exchange")
	// ErrForbidden says that the user lacks a permission within the virtual host.
	ErrForbidden = errors.New("the user lacks a permission")
	// errTaken says that the server delivers no more though the connection lives.
	errTaken = errors.New("the broker has taken away the queue: somebody deleted it, or the broker is being stopped")
)

// InboxSettings say what the queue of an inbox is like.
type InboxSettings struct {
	// ConnectionName is what the management UI shows of its connection.
	ConnectionName string
	// Queue is the queue's name.
	Queue string
	// MaxLength and MaxBytes bound what waits in the queue, of which the oldest
	// then goes first. TTL bounds for how long it does.
	MaxLength, MaxBytes int
	TTL                 time.Duration
	// Prefetch is how many messages the server sends before the first of them is
	// read by Next. 0: it sends all, and this process holds what is not read.
	Prefetch int
}

// Message is what has come to the queue of an inbox.
type Message struct {
	ContentType, ContentEncoding string
	// Ticket is the header of that name, empty if there is none.
	Ticket string
	Body   []byte
}

// Publication is a message of JSON in UTF-8.
type Publication struct {
	Headers map[string]any
	Body    []byte
	// Expires is when it is of no more use, after which the server does not deliver
	// it.
	Expires time.Time
}

// Inbox is a connection with a queue of its own from which it consumes. The queue is
// exclusive: nobody else can read it, and it is gone when the connection is. An inbox
// is not safe for concurrent use.
type Inbox struct {
	session
	settings InboxSettings
	messages <-chan amqp.Delivery
	// closed gets why the server has closed the channel of the messages.
	closed chan *amqp.Error
	// questions is the channel of what the server may refuse, by which it closes the
	// channel; nil before the first and after a refusal. Refusals gets why it did.
	questions *amqp.Channel
	refusals  chan *amqp.Error
}

// OpenInbox connects, logs in, declares the queue and begins to consume. It blocks
// until that is done, or ctx is. The error wraps ErrForbidden if the user may not do
// that.
func (e Endpoint) OpenInbox(ctx context.Context, settings InboxSettings) (*Inbox, error) {
	socket, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	s, err := e.logIn(ctx, socket, socket, settings.ConnectionName, inboxHeartbeat)
	if err != nil {
		return nil, err
	}
	i := &Inbox{session: s, settings: settings}
	if err := i.during(ctx, i.consume); err != nil {
		_ = i.Close()
		return nil, err
	}
	return i, nil
}

// Queue is the name of its queue.
func (i *Inbox) Queue() string { return i.settings.Queue }

// consume declares the queue and consumes from it.
func (i *Inbox) consume() error {
	channel, err := i.link.Channel()
	if err != nil {
		return err
	}
	i.closed = channel.NotifyClose(make(chan *amqp.Error, 1))
	s := i.settings
	_, err = channel.QueueDeclare(s.Queue, false, true, true, false, amqp.Table{
		"x-queue-type": "classic", // whatever the virtual host's default is: no other can be exclusive
		"x-max-length": s.MaxLength, "x-max-length-bytes": s.MaxBytes, "x-overflow": "drop-head",
		"x-message-ttl": s.TTL.Milliseconds(),
	})
	if err != nil {
		return refused(err, "declare queue %q", s.Queue)
	}
	if s.Prefetch > 0 {
		if err := channel.Qos(s.Prefetch, 0, false); err != nil {
			return err
		}
	}
	i.messages, err = channel.Consume(s.Queue, "", s.Prefetch == 0, true, false, false, nil)
	return refused(err, "consume from queue %q", s.Queue)
}

// Bind makes what is published to an exchange come to the queue. To do so again
// changes nothing. It blocks until the server has answered, or ctx is done, which
// ends the connection. The error is ErrNoExchange if there is no such exchange, after
// which the inbox goes on as it was; it wraps ErrForbidden if the user may not do
// that.
func (i *Inbox) Bind(ctx context.Context, exchange, key string) error {
	return i.during(ctx, func() error {
		if err := i.openQuestions(); err != nil {
			return err
		}
		err := i.questions.QueueBind(i.settings.Queue, key, exchange, false, nil)
		return i.answered(err, "bind queue %q to exchange %q", i.settings.Queue, exchange)
	})
}

// Publish sends a message to an exchange and blocks until the server has it, or ctx
// is done, which ends the connection. Errors are like those of Bind.
func (i *Inbox) Publish(ctx context.Context, exchange string, p Publication) error {
	return i.during(ctx, func() error {
		if err := i.openQuestions(); err != nil {
			return err
		}
		confirmed, err := i.questions.PublishWithDeferredConfirmWithContext(ctx, exchange, "", false, false, p.message())
		if err == nil {
			err = i.outcome(confirmed)
		}
		return i.answered(err, "publish to exchange %q", exchange)
	})
}

// message is the publication as the client library has it.
func (p Publication) message() amqp.Publishing {
	expiration := max(time.Until(p.Expires), 0).Milliseconds()
	return amqp.Publishing{
		ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Transient,
		Headers: p.Headers, Expiration: fmt.Sprint(expiration), Body: p.Body,
	}
}

// outcome waits until the server has a message, or has refused it.
func (i *Inbox) outcome(confirmed *amqp.DeferredConfirmation) error {
	if confirmed.Wait() {
		return nil
	}
	select {
	case err := <-i.refusals:
		if err != nil {
			return err
		}
		return amqp.ErrClosed
	default:
		return nil // one of several queues has not taken it, the others have
	}
}

// openQuestions makes the channel of questions if there is none.
func (i *Inbox) openQuestions() error {
	if i.questions != nil {
		return nil
	}
	channel, err := i.link.Channel()
	if err != nil {
		return err
	}
	i.questions, i.refusals = channel, channel.NotifyClose(make(chan *amqp.Error, 1))
	return channel.Confirm(false)
}

// answered takes in the answer to a question.
func (i *Inbox) answered(err error, format string, what ...any) error {
	if err == nil {
		return nil
	}
	i.questions = nil
	if refusal, ok := errors.AsType[*amqp.Error](err); ok && refusal.Server && isNoExchange(refusal) {
		return ErrNoExchange
	}
	return refused(err, format, what...)
}

// Next returns the next message. It blocks until there is one, or ctx is done, or
// none can come any more.
func (i *Inbox) Next(ctx context.Context) (Message, error) {
	select {
	case m, open := <-i.messages:
		if !open {
			return Message{}, i.lost(ctx)
		}
		ticket, _ := m.Headers["ticket"].(string)
		if i.settings.Prefetch > 0 {
			_ = m.Ack(false) // fails with the connection, which the next message tells
		}
		return Message{ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, Ticket: ticket, Body: m.Body}, nil
	case <-ctx.Done():
		return Message{}, ctx.Err()
	}
}

// lost is why no more messages come.
func (i *Inbox) lost(ctx context.Context) error {
	select {
	case err := <-i.closed:
		if err != nil {
			return i.socket.cause(ctx, err)
		}
		return i.socket.cause(ctx, amqp.ErrClosed)
	default:
		return errTaken
	}
}
