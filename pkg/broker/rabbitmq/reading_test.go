package rabbitmq

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

func TestDelayedMessagesAreUnknownIfOneOfTheirQueuesIs(t *testing.T) {
	two := celery.Number{N: 2, Known: true}
	good := management.Queue{Type: typeQuorum, State: "running", Ready: two, Unacked: two}
	for name, c := range map[string]struct {
		other management.Queue
		known bool
	}{
		"all are counted":   {good, true},
		"one has no leader": {management.Queue{Type: typeQuorum, State: "down", Ready: two, Unacked: two}, false},
		"one has no number": {management.Queue{Type: typeQuorum, State: "running", Unacked: two}, false},
	} {
		list := listOf(time.Time{}, "celery")
		list.queues["celery_delayed_0"], list.queues["celery_delayed_1"] = good, c.other
		got := reading{list: list}.delayed()
		if (got != nil) != c.known || got != nil && got.N != 8 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
