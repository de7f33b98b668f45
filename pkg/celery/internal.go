package celery

import (
	"strconv"
	"strings"
)

const (
	// EventExchange is the topic exchange of events (celery/events/event.py). A worker
	// speaks of itself with routing keys that begin with "worker.".
	EventExchange = "celeryev"
	// ControlExchange is the fanout exchange of remote control
	// (celery/app/control.py, kombu/pidbox.py).
	ControlExchange = "celery.pidbox"
)

// OwnQueuePrefix begins the names of the queues that celery-hpa makes for itself, to
// hear the workers and their replies.
const OwnQueuePrefix = "celery-hpa."

// IsInternalExchange reports whether an exchange serves Celery itself and
// carries no tasks for a queue: remote control and its replies
// (kombu/pidbox.py, exchange_fmt), and events (celery/events/event.py).
func IsInternalExchange(name string) bool {
	return strings.HasSuffix(name, ".pidbox") || name == EventExchange
}

// IsInternalQueue reports whether a queue is one that Celery makes by itself, so
// that it is no queue to scale on: remote control and its replies, events,
// broadcast copies (kombu/common.py, Broadcast), the queues of single workers
// (worker_direct: celery/utils/nodenames.py), results, and queues without a name
// of their own: replies of the rpc result backend, which are named by a UUID
// (celery/backends/rpc.py), and "amq.gen-", which the broker makes up; or one of
// celery-hpa's own.
//
// The queues of native delayed delivery are not among them: see IsDelayedQueue.
func IsInternalQueue(name string) bool {
	for _, suffix := range []string{".pidbox", ".dq2"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	for _, prefix := range []string{"celeryev.", "bcast.", "celery-task-meta-", "celery-taskset-meta-", "amq.gen-", OwnQueuePrefix} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return isUUID(name)
}

// isUUID reports whether s is a UUID as Python writes it.
func isUUID(s string) bool {
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	if len(s) != len(form) {
		return false
	}
	for i := range len(form) {
		digit := strings.IndexByte("0123456789abcdef", s[i]) >= 0
		if digit != (form[i] == 'x') || !digit && s[i] != '-' {
			return false
		}
	}
	return true
}

// IsDelayedQueue reports whether a queue is one of Celery's native delayed
// delivery on RabbitMQ, where messages wait for their ETA: "celery_delayed_0" to
// "celery_delayed_27", after "PREFIX_" where one is set
// (kombu/transport/native_delayed_delivery.py, level_name).
func IsDelayedQueue(name string) bool {
	const stem, highest = "celery_delayed_", 27
	i := strings.LastIndex(name, stem)
	if i < 0 {
		return false
	}
	prefix, level := name[:i], name[i+len(stem):]
	if prefix != "" && (prefix == "_" || !strings.HasSuffix(prefix, "_")) {
		return false
	}
	n, err := strconv.Atoi(level)
	return err == nil && n >= 0 && n <= highest && strconv.Itoa(n) == level
}
