package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// heard is a worker that was heard some time before t0.
func heard(active int64, before time.Duration) workers.Worker {
	return workers.Worker{
		Broker: queue.BrokerRef{Namespace: "airflow", Name: "redis"}, Node: "celery@pod", Host: "pod",
		HeardAt: t0.Add(-before), Frequency: 2 * time.Second,
		Active: celery.Number{N: active, Known: true}, Slots: celery.Number{N: 4, Known: true}, Since: t0.Add(-time.Minute),
	}
}

func TestPodsAreJudgedByTheirWorkers(t *testing.T) {
	ready := pod{ready: true, alone: true, shared: 1}
	with := func(p pod, change func(*pod)) pod {
		change(&p)
		return p
	}
	offline := heard(0, time.Second)
	offline.OfflineAt = t0.Add(-time.Second)
	returned := heard(0, time.Second)
	returned.OfflineAt = t0.Add(-5 * time.Second)
	moved := heard(0, time.Second)
	moved.Moved = true
	vague := heard(0, time.Second)
	vague.Active = celery.Number{}
	told := func(tasks int) workers.Worker {
		w := heard(0, time.Second)
		w.Told, w.ToldAt = tasks, t0.Add(-time.Millisecond)
		return w
	}
	tests := []struct {
		rule   string
		pod    pod
		heard  []workers.Worker
		want   State
		reason string
	}{
		{"a worker that executes nothing is idle", ready, []workers.Worker{heard(0, time.Second)}, Idle, "executes nothing since 1m0s"},
		{"one that executes something is busy", ready, []workers.Worker{heard(2, time.Second)}, Busy, "executes 2 tasks"},
		{"one that has told of a task since its latest heartbeat is busy", ready, []workers.Worker{told(1)}, Busy, "says that it executes 1 tasks"},
		{"one that has told of none is idle", ready, []workers.Worker{told(0)}, Idle, "executes nothing"},
		{"a silent one is unknown", ready, []workers.Worker{heard(0, 7*time.Second)}, Unknown, "silent for 7s"},
		{"one that shuts down is draining", ready, []workers.Worker{offline}, Draining, "shuts down"},
		{"one that takes short tasks is busy", ready, []workers.Worker{moved}, Busy, "has taken tasks"},
		{
			"one that shut down before its container was started again is another", with(ready, func(p *pod) { p.restartedAt = t0.Add(-2 * time.Second) }),
			[]workers.Worker{returned},
			Idle, "executes nothing",
		},
		{"one that does not tell its tasks is unknown", ready, []workers.Worker{vague}, Unknown, "does not tell"},
		{"a ready pod whose worker was never heard is unknown", ready, nil, Unknown, "never heard"},
		{"one that is not ready yet is starting", pod{alone: true, shared: 1}, nil, Starting, "not ready yet"},
		{"one that is not ready any more is as its worker", pod{alone: true, shared: 1}, []workers.Worker{heard(0, 7*time.Second)}, Unknown, "silent"},
		{"one that is being deleted is draining", with(ready, func(p *pod) { p.terminating = true }), []workers.Worker{heard(0, time.Second)}, Draining, "being deleted"},
		{"the busy one of two counts", ready, []workers.Worker{heard(0, time.Second), heard(1, time.Second)}, Busy, "1 tasks"},
		{"the unknown one of two counts", ready, []workers.Worker{heard(3, time.Second), heard(0, 7*time.Second)}, Unknown, "silent"},
		{
			"what was heard before a restart is over", with(ready, func(p *pod) { p.restartedAt = t0.Add(-2 * time.Second) }),
			[]workers.Worker{heard(1, 5*time.Second), heard(0, time.Second)},
			Idle, "executes nothing",
		},
		{
			"after a restart nothing is known until the worker is heard", with(ready, func(p *pod) { p.restartedAt = t0.Add(-2 * time.Second) }),
			[]workers.Worker{heard(0, 5*time.Second)},
			Unknown, "never heard",
		},
		{
			"with several containers what was heard before a restart may be of another",
			pod{ready: true, shared: 1, restartedAt: t0.Add(-2 * time.Second)},
			[]workers.Worker{heard(1, 5*time.Second)},
			Busy, "1 tasks",
		},
		{
			"of pods that share a host name nobody can be told apart", with(ready, func(p *pod) { p.shared = 2 }),
			[]workers.Worker{heard(0, time.Second), heard(1, time.Second)},
			Unknown, "host name is that of 2 pods",
		},
		{
			"one worker for two pods says nothing of the other", with(ready, func(p *pod) { p.shared = 2 }),
			[]workers.Worker{heard(0, time.Second)},
			Unknown, "host name is that of 2 pods",
		},
		{
			"pods that share a host name are idle when all workers are", with(ready, func(p *pod) { p.shared = 2 }),
			[]workers.Worker{heard(0, time.Second), heard(0, time.Second)},
			Idle, "executes nothing",
		},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := judgePod(tt.pod, tt.heard, t0)
			if got.State != tt.want || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("%s: %s; want %s: %s", got.State, got.Reason, tt.want, tt.reason)
			}
		})
	}
}

func TestOnlyIdleAndStartingAreNotBusy(t *testing.T) {
	for state, want := range map[State]bool{Unknown: true, Starting: false, Idle: false, Busy: true, Draining: true} {
		if got := state.IsBusy(); got != want {
			t.Errorf("%s: busy %t, want %t", state, got, want)
		}
	}
}

func TestTasksThatWereToldOfCount(t *testing.T) {
	w := heard(0, time.Second)
	w.Told, w.ToldAt = 3, t0.Add(-time.Millisecond)
	if v := Judge(w, t0); v.Active != queue.Known(3, w.ToldAt) || v.Since != w.ToldAt {
		t.Errorf("active %+v since %s, want 3 as of %s", v.Active, v.Since, w.ToldAt)
	}
}

func TestWhatMayHaveBegunIsTheMostOfAnyWorker(t *testing.T) {
	first, second := heard(0, time.Second), heard(1, time.Second)
	first.Begun, second.Begun = 5, 3
	if v := judgePod(pod{ready: true, shared: 1}, []workers.Worker{first, second}, t0); v.Begun != 5 {
		t.Errorf("%d may have begun, want 5", v.Begun)
	}
}
