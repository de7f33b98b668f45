package redis

import (
	"context"
	"crypto/sha256"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// maxRemembered is how many messages are remembered that may come a second time, by
// another pattern: as many as kombu remembers (SentinelChannel._fanout_compat_dedup_size).
const maxRemembered = 1000

// Listen hears what workers say of themselves. It calls listening once the server
// has confirmed that from now on every event comes, then heard for each, one after
// the other: with the event, or with an error that wraps monitor.ErrEvent and quotes
// nothing of the message. heard is to return soon: the server drops those that read
// too slowly, as it does (client-output-buffer-limit) with messages of many MB.
//
// Listen blocks until the context is done, and then returns the context's error, or
// until the server refuses, is lost, or has gone silent for 5 to 7 s, whatever the
// state of the connection. With a failover list, it looks for a server as Sample
// does, and no longer than that.
func (w *Workers) Listen(ctx context.Context, listening func(), heard func(monitor.WorkerEvent, error)) error {
	var at server.Endpoint
	var s *server.Subscription
	err := w.onOne(ctx, w.listeningTo, func(ctx context.Context, e server.Endpoint) (err error) {
		at = e
		s, err = e.Subscribe(ctx, w.keys.EventPatterns(w.transport, e.DB))
		return err
	})
	if err == nil {
		listening()
		err = w.listeningTo(at).Wrap(at.Address, s.Receive(ctx, once(heard)))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// once decodes messages, and passes on those that did not come by another pattern
// before.
func once(heard func(monitor.WorkerEvent, error)) func(pattern, payload string) {
	known := repeats{patterns: map[message]string{}}
	return func(pattern, payload string) {
		if !known.isRepeated(pattern, payload) {
			heard(monitor.DecodePublishedEvent([]byte(payload)))
		}
	}
}

// listeningTo is what errors of Listen say. A pattern must stand in a rule as it is.
func (w *Workers) listeningTo(e server.Endpoint) server.Purpose {
	return w.purpose("listen to the workers of", e, "+psubscribe +ping", w.keys.EventPatterns(w.transport, e.DB))
}

// repeats remembers messages that may come by several patterns. Two that are alike
// and come by one pattern are two: the delivery tag in it makes each its own.
type repeats struct {
	patterns map[message]string
	order    []message // of the oldest first
}

type message [sha256.Size]byte

// isRepeated reports whether a message has come by another pattern before.
func (r *repeats) isRepeated(pattern, payload string) bool {
	m := message(sha256.Sum256([]byte(payload)))
	if by, known := r.patterns[m]; known {
		return by != pattern
	}
	if len(r.order) == maxRemembered {
		delete(r.patterns, r.order[0])
		r.order = r.order[1:]
	}
	r.patterns[m] = pattern
	r.order = append(r.order, m)
	return false
}
