package rabbitmq

import (
	"context"
	"fmt"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/workers"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// Workers hears the workers of one broker and asks them by remote control. It has
// connections of its own: one while Listen runs, and one for Ask that is kept for the
// next. A broker that is short of memory or disk stops whoever publishes, and with
// them nobody who listens. Listen and Ask may be called at the same time.
type Workers struct {
	listener *workers.Listener
	asker    *workers.Asker
}

// NewWorkers checks the configuration and connects to nothing. Of the Config it heeds
// what reaching the broker over AMQP takes, and Timeout. It reads the TLS files and
// does no other I/O. Its errors name no credential.
func NewWorkers(cfg Config) (*Workers, error) {
	cfg = cfg.withDefaults()
	endpoints, err := cfg.endpoints()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	return &Workers{
		listener: workers.NewListener(cfg.Ref, endpoints, cfg.Timeout), asker: workers.NewAsker(cfg.Ref, endpoints),
	}, nil
}

// Listen hears what workers say of themselves. It calls listening once from now on
// every event comes, then heard for each, one after the other: with the event, or
// with an error that wraps monitor.ErrEvent and quotes nothing of the message. heard
// is to return soon: what comes meanwhile is kept in memory.
//
// It declares a queue of its own, which is gone when its connection is, and nothing
// else. Where the exchange of events does not exist, nobody can be speaking: listening
// is called, too, and the exchange is looked for, in the end every ten seconds: for so
// long the first worker may go unheard.
//
// Listen blocks until the context is done, and then returns the context's error, or
// until the broker refuses, is lost, or has been silent for 6 s, whatever the state of
// the connection. The error says what failed, where, why, and what to do; a right that
// is missing is named by the command that gives it. With a failover list, each server
// has the time-out to let it in. It is for one caller at a time.
func (w *Workers) Listen(ctx context.Context, listening func(), heard func(monitor.WorkerEvent, error)) error {
	return w.listener.Listen(ctx, listening, heard)
}

// Ask asks the workers of these names. It blocks until each has answered or the
// context is done, a minute at most, and returns the answers that came, in any order:
// one of a worker at most, none of others. That somebody is silent is no error, and
// means nothing by itself: frozen workers, those of the solo pool that execute a task,
// and those that are gone are silent alike. Where there is no exchange for remote
// control, no worker ever listened, and Ask returns at once.
//
// An error means that the question could not be put, or the answers not be read; those
// that came before are returned with it. It is worded as that of Listen. A second call
// waits for the first.
func (w *Workers) Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	return w.asker.Ask(ctx, method, nodes)
}

// Close ends the connection that Ask has kept. It blocks until it is closed, a second
// at most. That of Listen ends with its context.
func (w *Workers) Close() error { return w.asker.Close() }
