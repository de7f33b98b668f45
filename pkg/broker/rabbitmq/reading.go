package rabbitmq

import (
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Types of queues.
const (
	typeClassic = "classic"
	typeQuorum  = "quorum"
)

// errETA is why the number of scheduled messages is not known.
var errETA = errors.New("RabbitMQ does not tell which of the messages that workers hold wait for an ETA")

// reading is what the two sources have said for one sample.
type reading struct {
	// at is when the server was asked over AMQP.
	at          time.Time
	virtualHost string
	// quorumLag is how old the numbers of a quorum queue may be when the
	// management API gives them. Those of a classic queue are of the moment.
	quorumLag time.Duration
	// answers are the server's, without queues that the list proves missing.
	answers map[string]server.Answer
	// list is the management API's, nil if there is none; unlisted says why.
	list     *listing
	unlisted error
	// seen holds the queues that the broker has had at some time.
	seen map[string]time.Time
	// acknowledged is how many tasks of each queue execute that the broker has
	// forgotten already, as of after the list.
	acknowledged map[string]int64
	// untaken holds the queues that nobody takes from.
	untaken untaken
}

func (r reading) depths(names []string) map[string]queue.Depth {
	depths := make(map[string]queue.Depth, len(names))
	for _, name := range names {
		depths[name] = r.depth(name)
	}
	return depths
}

func (r reading) depth(name string) queue.Depth {
	answer, asked := r.answers[name]
	switch {
	case !asked:
		return r.missing(name, r.list.at)
	case errors.Is(answer.Err, server.ErrMissing):
		return r.missing(name, r.at)
	}
	backlog := queue.Known(answer.Ready, r.at)
	if answer.Err != nil {
		backlog = queue.Unknown(fmt.Errorf("queue %q: %w", name, answer.Err))
	}
	if err := r.uncountable(name); err != nil {
		return unknown(err)
	}
	held := r.held(name, answer)
	return queue.Depth{Backlog: backlog, InFlight: r.withAcknowledged(name, held), Scheduled: scheduled(held), Oldest: r.oldest(name, answer, backlog)}
}

// withAcknowledged adds to what the broker says that workers hold of a queue the
// tasks that execute and that it has forgotten. What is not known stays so.
func (r reading) withAcknowledged(name string, held queue.Count) queue.Count {
	if held.Err == nil {
		held.N += r.acknowledged[name]
	}
	return held
}

// missing is a queue that the broker does not have. Of one that it had before, nothing
// is left but what executes. One that it never had is most likely misspelt, or of
// another virtual host, where it may be full.
func (r reading) missing(name string, at time.Time) queue.Depth {
	if _, before := r.seen[name]; before {
		none := queue.Known(0, at)
		return queue.Depth{Backlog: none, InFlight: r.withAcknowledged(name, none), Scheduled: none, Oldest: none}
	}
	return unknown(fmt.Errorf("there is no queue %q in the virtual host %q: is the name or the virtual host misspelt? A queue is there once a worker or a publisher has declared it",
		name, r.virtualHost))
}

// uncountable says why no number of a queue can be believed: a quorum queue
// without a leader answers 0, over AMQP as well (rabbit_quorum_queue.erl, stat/2).
func (r reading) uncountable(name string) error {
	if r.list == nil {
		return nil
	}
	switch state := r.list.queues[name].State; state {
	case "", "running", "idle", "flow", "syncing":
		return nil
	default:
		return fmt.Errorf("queue %q is %.60s: its messages cannot be counted; see rabbitmqctl list_queues name state, and the broker's log", name, state)
	}
}

// held is the unacknowledged messages as of the list, and with them those that have
// left the ready ones between the list and the answer: each of them is in flight or
// finished. So a message on its way is never missed, and while many finish, the
// number is too high until the next list.
func (r reading) held(name string, answer server.Answer) queue.Count {
	if r.list == nil {
		return queue.Unknown(fmt.Errorf("in flight of queue %q: %w", name, r.unlisted))
	}
	q, listed := r.list.queues[name]
	switch {
	case !listed:
		return queue.Unknown(fmt.Errorf("in flight of queue %q: the latest list of the management API does not have it yet", name))
	case !q.Unacked.Known || !q.Ready.Known:
		return queue.Unknown(fmt.Errorf("in flight of queue %q: the management API gives no number of its messages, as it happens soon after a start of the broker", name))
	}
	n := q.Unacked.N
	if answer.Err == nil {
		n += max(0, q.Ready.N-answer.Ready)
	}
	return queue.Known(n, r.countedAt(q))
}

// countedAt is the time since when the management API's numbers of a queue hold.
func (r reading) countedAt(q management.Queue) time.Time {
	if q.Type == typeClassic {
		return r.list.at
	}
	return r.list.at.Add(-r.quorumLag)
}

// delayed is the messages in the queues of native delayed delivery.
func (r reading) delayed() *queue.Count {
	if r.list == nil {
		return nil
	}
	sum := queue.Known(0, r.list.at)
	for name, q := range r.list.queues {
		if !celery.IsDelayedQueue(name) {
			continue
		}
		if !q.Ready.Known || !q.Unacked.Known || r.uncountable(name) != nil {
			return nil
		}
		sum.N += q.Ready.N + q.Unacked.N
		if at := r.countedAt(q); at.Before(sum.At) {
			sum.At = at
		}
	}
	return &sum
}

// scheduled is known only where no message is held that might wait for its ETA.
func scheduled(held queue.Count) queue.Count {
	if held.Err != nil || held.N == 0 {
		return held
	}
	return queue.Unknown(errETA)
}

// unknown is a queue of which nothing is known.
func unknown(err error) queue.Depth {
	none := queue.Unknown(err)
	return queue.Depth{Backlog: none, InFlight: none, Scheduled: none, Oldest: none}
}
