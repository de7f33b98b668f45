package idle_test

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// A message that was seen before a pause is no reason to go first after it.
func TestAfterAPauseTheReplicaThatLeadsGoesFirst(t *testing.T) {
	now := start()
	known := queue.Known(0, now)
	waiting := idle.Observation{Wanted: 1, Queues: []idle.Queue{
		{Name: "celery", Depth: queue.Depth{Backlog: queue.Known(1, now), InFlight: known, Scheduled: known}},
	}}
	spec := idle.Spec{Window: time.Minute, Floor: 1, Ceiling: 10}
	paused := spec
	paused.Paused = true
	st, d := idle.Decide(spec, idle.State{}, waiting, now)
	if d.Cause != idle.Standby {
		t.Fatalf("before the pause it is %v", d)
	}
	st, _ = idle.Decide(paused, st, waiting, now.Add(time.Second))
	if _, d = idle.Decide(spec, st, waiting, now.Add(time.Minute)); d.Cause != idle.Standby || d.After != idle.StandbyDelay {
		t.Errorf("after the pause it is %v, want it to wait its turn", d)
	}
}
