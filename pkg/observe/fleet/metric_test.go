package fleet_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// member is a ready pod of a fleet; in a StatefulSet the number is its ordinal.
func member(number int, state fleet.State, active int64) fleet.Member {
	return fleet.Member{
		Pod: fmt.Sprintf("worker-%d", number), Ordinal: number, Ready: true, State: state,
		Active: queue.Known(active, t0), Slots: queue.Known(4, t0),
	}
}

func TestMetrics(t *testing.T) {
	leaving := member(9, fleet.Draining, 3)
	leaving.Terminating = true
	left := member(8, fleet.Draining, 0)
	left.Terminating = true
	silent := member(1, fleet.Unknown, 0)
	silent.Active = queue.Unknown(errors.New("silent"))
	starting := member(2, fleet.Starting, 0)
	starting.Ready, starting.Slots = false, queue.Unknown(errors.New("not heard"))
	members := func(m ...fleet.Member) fleet.Fleet {
		return fleet.Fleet{Ref: fleet.Ref{Namespace: "airflow", Kind: fleet.Deployment, Name: "worker"}, Heard: true, Members: m}
	}
	set := func(m ...fleet.Member) fleet.Fleet {
		f := members(m...)
		f.Kind = fleet.StatefulSet
		return f
	}
	strange := members(member(0, fleet.Unknown, 0))
	strange.Heard = false
	empty := members()
	empty.Heard = false
	may := func(number int, state fleet.State, active, begun int64) fleet.Member {
		m := member(number, state, active)
		m.Begun = begun
		return m
	}
	tests := []struct {
		rule  string
		fleet fleet.Fleet
		want  string // busy, active, slots
	}{
		{"nobody is busy among the idle", members(member(0, fleet.Idle, 0), member(1, fleet.Idle, 0)), "0 0 8"},
		{"busy workers are counted, and their tasks", members(member(0, fleet.Busy, 2), member(1, fleet.Idle, 0), member(2, fleet.Busy, 1)), "2 3 12"},
		{"the silent and the draining count as busy", members(silent, member(2, fleet.Draining, 0)), "2 ? 8"},
		{"pods that are being deleted count while they execute something", members(member(0, fleet.Busy, 2), leaving, left), "2 5 4"},
		{"starting pods do not count", members(member(0, fleet.Idle, 0), starting), "0 0 4"},
		{"in a StatefulSet the highest busy ordinal holds those below", set(member(0, fleet.Idle, 0), member(7, fleet.Busy, 1), member(8, fleet.Idle, 0)), "8 1 12"},
		{"in a StatefulSet ordinal 0 holds one replica", set(member(0, fleet.Busy, 1), member(1, fleet.Idle, 0)), "1 1 8"},
		{"tasks that have begun unheard make idle workers busy, one each", members(may(0, fleet.Idle, 0, 2), may(1, fleet.Idle, 0, 2), may(2, fleet.Idle, 0, 2), member(3, fleet.Idle, 0)), "2 2 16"},
		{"no more than may have taken them", members(may(0, fleet.Idle, 0, 9), may(1, fleet.Busy, 1, 9), member(2, fleet.Idle, 0)), "2 10 12"},
		{"in a StatefulSet any that may have taken one", set(may(0, fleet.Idle, 0, 1), may(1, fleet.Idle, 0, 1), member(2, fleet.Idle, 0)), "2 1 12"},
		{"a fleet without pods is at zero", empty, "0 0 0"},
		{"of a fleet that was never heard nothing is known", strange, "? ? ?"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := ""
			for i, m := range fleet.Metrics() {
				if i > 0 {
					got += " "
				}
				if c := m.Of(tt.fleet, t0); c.Err != nil {
					got += "?"
				} else {
					got += fmt.Sprint(c.N)
				}
			}
			if got != tt.want {
				t.Errorf("busy, active, slots are %q, want %q", got, tt.want)
			}
		})
	}
}
