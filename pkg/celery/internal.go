package celery

import "strings"

// IsInternalExchange reports whether an exchange serves Celery itself and
// carries no tasks for a queue: remote control and its replies
// (kombu/pidbox.py, exchange_fmt), and events (celery/events/event.py).
func IsInternalExchange(name string) bool {
	return strings.HasSuffix(name, ".pidbox") || name == "celeryev"
}

// IsInternalQueue reports whether a queue is one that Celery makes by itself, so
// that it is no queue to scale on: remote control and its replies, events,
// broadcast copies (kombu/common.py, Broadcast), the queues of single workers
// (worker_direct: celery/utils/nodenames.py), and results.
func IsInternalQueue(name string) bool {
	for _, suffix := range []string{".pidbox", ".dq2"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	for _, prefix := range []string{"celeryev.", "bcast.", "celery-task-meta-", "celery-taskset-meta-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
