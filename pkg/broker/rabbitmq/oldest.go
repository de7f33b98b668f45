package rabbitmq

import (
	"errors"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// errTaken says why the age of the oldest message is unknown. RabbitMQ shows no
// message to anybody who does not take it.
var errTaken = errors.New("RabbitMQ does not tell for how long a message has waited, other than by nobody taking any: the queue has consumers")

// untaken is since when queues have been seen to hold messages that nobody takes, by
// name. What was there at that time is there still.
type untaken map[string]waiting

// waiting is what such a queue holds.
type waiting struct {
	since time.Time
	ready int64
}

// note takes in the answers of a sample. A queue that has consumers, or fewer messages
// than before, begins anew.
func (u untaken) note(answers map[string]server.Answer, at time.Time) {
	for name, a := range answers {
		before, known := u[name]
		switch {
		case a.Err != nil || a.Ready == 0 || a.Consumers > 0:
			delete(u, name)
		case !known || a.Ready < before.ready:
			u[name] = waiting{at, a.Ready}
		default:
			u[name] = waiting{before.since, a.Ready}
		}
	}
}

// oldest is for how long the oldest message of a queue has waited at least.
func (r reading) oldest(name string, answer server.Answer, backlog queue.Count) queue.Count {
	switch {
	case backlog.Err != nil || backlog.N == 0:
		return backlog
	case answer.Consumers > 0:
		return queue.Unknown(errTaken)
	}
	return queue.Known(r.at.Sub(r.untaken[name].since).Milliseconds(), r.at)
}
