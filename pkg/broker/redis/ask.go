package redis

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// maxAsk bounds a question whose context has no deadline.
const maxAsk = time.Minute

// Ask asks the workers of these names. It blocks until each has answered or the
// context is done, a minute at most, and returns the answers that came, in any
// order: one of a worker at most, none of others. That somebody is silent is no
// error, and means nothing by itself: frozen workers, those of the solo pool that
// execute a task, and those that are gone are silent alike. Where no worker listens
// at all, it returns at once.
//
// An error means that the question could not be put, or the answers not be read;
// those that came before are returned with it. A second call waits for the first.
func (w *Workers) Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	if len(nodes) == 0 {
		return nil, nil // for Celery, that would be all of them
	}
	w.asking.Lock()
	defer w.asking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	expires, _ := ctx.Deadline()
	question := monitor.ControlRequest{Method: method, Nodes: nodes, Ticket: uuid.NewString(), ReplyTo: w.mailbox.Name, Expires: expires}
	var at server.Endpoint
	var listeners int64
	err := w.onOne(ctx, w.asksOf, func(ctx context.Context, e server.Endpoint) (err error) {
		at = e
		listeners, err = w.mailbox.Publish(ctx, e, w.keys.ControlChannels(w.transport, e.DB), question.Published())
		return err
	})
	if err != nil || listeners == 0 {
		return nil, err
	}
	return w.collect(ctx, at, question)
}

// collect waits for the answers to a question.
func (w *Workers) collect(ctx context.Context, at server.Endpoint, question monitor.ControlRequest) ([]monitor.ControlReply, error) {
	replies, complete, err := w.mailbox.Collect(ctx, at, question.Ticket, question.Nodes)
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Timeout)
	defer cancel()
	_ = w.mailbox.Settle(settling, at, complete, time.Now()) // the list expires in any case
	if err != nil {
		return replies, w.asksOf(at).Explain(at.Address, err)
	}
	return replies, nil
}

// asksOf is what errors of Ask say.
func (w *Workers) asksOf(e server.Endpoint) server.Purpose {
	replies := celery.EscapeGlob(w.keys.Queue(celery.RepliesPrefix, 0)) + "*"
	channels := w.keys.ControlChannels(w.transport, e.DB)
	for i, channel := range channels {
		channels[i] = celery.EscapeGlob(channel)
	}
	return w.purpose("ask the workers of", e, "+multi +exec +del +rpush +expire +publish +llen +lpop ~"+replies, channels)
}
