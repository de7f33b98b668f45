package rabbitmq

import (
	"fmt"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// maxQueues bounds the queues that are known.
	maxQueues = 50_000
	// goneFor is how long a queue that was found stays known while the broker has
	// it no more: queues may expire while nobody uses them.
	goneFor = time.Hour
)

// known is the queues that are read: those of the configuration, or those that
// were found.
type known struct {
	names []string
	// has holds the same names.
	has map[string]bool
	// seen is when the broker last had the queue; absent if it never had.
	seen map[string]time.Time
	// discovers is whether queues are added as they are found.
	discovers bool
}

func newKnown(configured []string) *known {
	k := &known{seen: map[string]time.Time{}, has: map[string]bool{}, discovers: len(configured) == 0}
	for _, name := range configured {
		k.add(name)
	}
	return k
}

func (k *known) add(name string) {
	if !k.has[name] {
		k.names = append(k.names, name)
		k.has[name] = true
	}
}

// learn takes in what the management API has listed, which may be nothing.
func (k *known) learn(list *listing) error {
	if list == nil {
		return nil
	}
	for name, q := range list.queues {
		if k.discovers && isTaskQueue(name, q) {
			k.add(name)
		}
		if k.has[name] {
			k.seen[name] = list.at
		}
	}
	if len(k.names) > maxQueues {
		return fmt.Errorf("more than %d queues: list those of interest in spec.queues", maxQueues)
	}
	k.forget(list.at)
	return nil
}

// forget drops queues that were found and have been gone for long.
func (k *known) forget(now time.Time) {
	if !k.discovers {
		return
	}
	k.names = slices.DeleteFunc(k.names, func(name string) bool {
		gone := now.Sub(k.seen[name]) > goneFor
		if gone {
			delete(k.has, name)
			delete(k.seen, name)
		}
		return gone
	})
}

// note takes in for which queues the server had an answer.
func (k *known) note(answers map[string]server.Answer, at time.Time) {
	for name, a := range answers {
		if a.Err == nil {
			k.seen[name] = at
		}
	}
}

// toAsk is the queues that the server is to be asked about: without those that a
// list of this very sample, made since begun, does not have. A question about a
// queue that does not exist costs a channel.
func (k *known) toAsk(list *listing, begun time.Time) []string {
	if list == nil || list.at.Before(begun) {
		return k.names
	}
	names := make([]string, 0, len(k.names))
	for _, name := range k.names {
		if _, exists := list.queues[name]; exists {
			names = append(names, name)
		}
	}
	return names
}

// isTaskQueue reports whether a queue is one that workers take tasks from: no
// queue of Celery's own, none that belongs to one connection, no stream.
func isTaskQueue(name string, q management.Queue) bool {
	if q.Exclusive || celery.IsInternalQueue(name) || celery.IsDelayedQueue(name) {
		return false
	}
	return q.Type == "" || q.Type == typeClassic || q.Type == typeQuorum
}
