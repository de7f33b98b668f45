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
	// workerTopics are the routing keys of what workers say of themselves: the event's
	// type with dots for hyphens (celery/events/dispatcher.py).
	workerTopics = "worker.#"
	// bindPause is the first pause before looking again for an exchange of events that
	// is not there. It doubles: the broker writes each time into its log.
	bindPause = time.Second
	// rebindPause is the longest, and how long it takes to notice that somebody has
	// deleted the exchange, and with it the binding.
	rebindPause = 10 * time.Second
)

// eventsInbox is the queue of events. They come every two seconds from each worker
// and have about 400 bytes: there is room for all of the largest brokers, and what
// has waited for longer says nothing of the present.
func eventsInbox() server.InboxSettings {
	return server.InboxSettings{
		ConnectionName: "celery-hpa events", Queue: celery.OwnQueuePrefix + "events." + uuid.NewString(),
		MaxLength: 20_000, MaxBytes: 16 << 20, TTL: 10 * time.Second,
	}
}

// Listener hears the workers of one broker. It is for one caller at a time.
type Listener struct {
	line
	timeout time.Duration
}

// NewListener makes a listener and connects to nothing. The time-out is for each
// endpoint to let it in. There must be one at least.
func NewListener(broker queue.BrokerRef, endpoints []server.Endpoint, timeout time.Duration) *Listener {
	return &Listener{line{doing: fmt.Sprintf("listen to the workers of broker %s", broker), needs: rightsToListen(), endpoints: endpoints}, timeout}
}

// Listen calls listening once from now on every event comes, then heard for each, one
// after the other. It blocks until it cannot hear any more, or ctx is done, whose
// error it then returns.
func (l *Listener) Listen(ctx context.Context, listening func(), heard func(monitor.WorkerEvent, error)) error {
	inbox, err := l.open(ctx, func(e server.Endpoint) (*server.Inbox, error) {
		bounded, cancel := context.WithTimeout(ctx, l.timeout)
		defer cancel()
		return e.OpenInbox(bounded, eventsInbox())
	})
	if err == nil {
		err = l.explain(hear(ctx, inbox, sync.OnceFunc(listening), heard))
		_ = inbox.Close() // the error says why
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// hear hears until it cannot any more, and sees to it that events come.
func hear(ctx context.Context, inbox *server.Inbox, listening func(), heard func(monitor.WorkerEvent, error)) error {
	absent := bindPause
	for {
		pause := rebindPause
		err := inbox.Bind(ctx, celery.EventExchange, workerTopics)
		switch {
		case errors.Is(err, server.ErrNoExchange):
			pause, absent = absent, min(2*absent, rebindPause)
		case err != nil:
			return err
		default:
			absent = bindPause
		}
		listening()
		if err := hearFor(ctx, pause, inbox, heard); err != nil {
			return err
		}
	}
}

// hearFor hears for a while.
func hearFor(ctx context.Context, while time.Duration, inbox *server.Inbox, heard func(monitor.WorkerEvent, error)) error {
	bounded, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	for {
		m, err := inbox.Next(bounded)
		switch {
		case bounded.Err() != nil && err != nil:
			return ctx.Err() // if the connection is lost as well, binding tells
		case err != nil:
			return err
		}
		heard(monitor.DecodeWorkerEvent(m.ContentType, m.ContentEncoding, m.Body))
	}
}
