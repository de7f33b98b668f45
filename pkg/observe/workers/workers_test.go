package workers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var broker = queue.BrokerRef{Namespace: "airflow", Name: "redis"}

// source stands in for a broker: with it time is the test's own.
type source struct {
	events chan monitor.WorkerEvent
	broken chan error
	// declared is what the configuration says, by host.
	declared map[string]workers.Declaration
	// pods tells whether the host "moved" has one.
	pods atomic.Bool
	// patient has a question wait until it is over if somebody does not answer.
	patient bool
	// silenced has workers be asked nothing.
	silenced bool

	mu      sync.Mutex
	asked   []string
	answers map[string]string // by method and node: the content
	refusal error
}

func newSource() *source {
	return &source{answers: map[string]string{}}
}

func (s *source) Listen(ctx context.Context, listening func(), heard func(monitor.WorkerEvent, error)) error {
	listening()
	for {
		select {
		case e := <-s.events:
			heard(e, nil)
		case err := <-s.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *source) Ask(ctx context.Context, m monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	replies, err := s.answer(m, nodes)
	if s.patient && err == nil && len(replies) < len(nodes) {
		<-ctx.Done()
	}
	return replies, err
}

func (s *source) answer(m monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(nodes)
	s.asked = append(s.asked, string(m)+" "+strings.Join(nodes, ","))
	if s.refusal != nil {
		return nil, s.refusal
	}
	var replies []monitor.ControlReply
	for _, node := range nodes {
		content, ok := s.answers[string(m)+" "+node]
		if !ok {
			continue
		}
		reply, err := monitor.DecodeControlReply("application/json", "utf-8", "", fmt.Appendf(nil, `{%q: %s}`, node, content))
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

func (s *source) Close() error { return nil }

// takeAsked returns the questions since the last call.
func (s *source) takeAsked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.asked = nil }()
	return s.asked
}

type silent struct{}

func (silent) Heard(queue.BrokerRef, error) {}
func (silent) Deaf(queue.BrokerRef)         {}

// run has a group hear a source while do runs, with a clock of its own.
func run(t *testing.T, s *source, do func(*workers.Store)) {
	t.Helper()
	runGroup(t, s, func(_ *testing.T, _ *workers.Group, store *workers.Store) { do(store) })
}

func runGroup(t *testing.T, s *source, do func(*testing.T, *workers.Group, *workers.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.events, s.broken = make(chan monitor.WorkerEvent), make(chan error) // of the test's own clock
		ctx, cancel := context.WithCancel(t.Context())
		store := workers.NewStore()
		group := workers.NewGroup(store, silent{}, func(_, host string) (has, known bool) {
			return host == "kept" || host == "moved" && s.pods.Load(), host != "unlisted"
		}, slog.New(slog.NewTextHandler(io.Discard, nil)))
		group.Apply(ctx, []workers.Spec{{Ref: broker, Control: !s.silenced, Fingerprint: "1", Declared: func(host string) workers.Declaration { return s.declared[host] }, Open: func() (workers.Source, error) { return s, nil }}})
		synctest.Wait()
		do(t, group, store)
		cancel()
		group.Wait()
	})
}

func number(n int64) celery.Number { return celery.Number{N: n, Known: true} }

func beat(host string, pid, active, processed int64) monitor.WorkerEvent {
	return monitor.WorkerEvent{
		State: monitor.WorkerBeating, Node: "celery@" + host, PID: number(pid), Frequency: 2 * time.Second,
		Active: number(active), Processed: number(processed),
	}
}

// say lets a worker speak, and waits until it was heard.
func (s *source) say(e monitor.WorkerEvent) {
	s.events <- e
	synctest.Wait()
}

func TestHeartbeatsAreRemembered(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		start := time.Now()
		s.say(beat("pod-1.domain", 7, 2, 5))
		got := store.OnHost("airflow", "pod-1")
		want := []workers.Worker{{
			Broker: broker, Node: "celery@pod-1.domain", Host: "pod-1", PID: number(7),
			HeardAt: start, Frequency: 2 * time.Second, Active: number(2), Since: start,
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("workers (-want +got):\n%s", diff)
		}
		if other := store.OnHost("media", "pod-1"); other != nil {
			t.Errorf("another namespace sees %v", other)
		}
	})
}

func TestWorkerIsSilentAfterThreeHeartbeats(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("pod-1", 7, 0, 0))
		time.Sleep(6 * time.Second)
		if store.OnHost("airflow", "pod-1")[0].Silent(time.Now()) {
			t.Error("silent after exactly three heartbeats' time")
		}
		time.Sleep(time.Millisecond)
		if !store.OnHost("airflow", "pod-1")[0].Silent(time.Now()) {
			t.Error("not silent after more than three heartbeats' time")
		}
	})
}

func TestWorkerWithRareHeartbeatsIsNotTrustedForLong(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		e := beat("pod-1", 7, 0, 0)
		e.Frequency = 10 * time.Minute
		s.say(e)
		time.Sleep(31 * time.Second)
		if !store.OnHost("airflow", "pod-1")[0].Silent(time.Now()) {
			t.Error("a heartbeat of 31 s ago still says what the worker does")
		}
	})
}

func TestShutdownIsRememberedUntilAnotherProcessSpeaks(t *testing.T) {
	offline := beat("pod-1", 7, 1, 5)
	offline.State = monitor.WorkerOffline
	online := beat("pod-1", 7, 0, 0)
	online.State = monitor.WorkerOnline
	tests := []struct {
		rule string
		next monitor.WorkerEvent
		want bool
	}{
		{"a pool may send heartbeats while it shuts down", beat("pod-1", 7, 1, 5), true},
		{"and finish its tasks", beat("pod-1", 7, 0, 6), true},
		{"a process that begins is another", online, false},
		{"so is one that has taken fewer tasks", beat("pod-1", 7, 0, 0), false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newSource()
			run(t, s, func(store *workers.Store) {
				s.say(beat("pod-1", 7, 1, 5))
				s.say(offline)
				if w := store.OnHost("airflow", "pod-1")[0]; !w.Offline() || w.Active.N != 1 {
					t.Errorf("after worker-offline: %+v", w)
				}
				time.Sleep(2 * time.Second)
				s.say(tt.next)
				if got := store.OnHost("airflow", "pod-1")[0].Offline(); got != tt.want {
					t.Errorf("offline %t, want %t", got, tt.want)
				}
			})
		})
	}
}

func TestWorkerThatTakesTasksHasMoved(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		for i, step := range []struct {
			processed int64
			want      bool
		}{{5, false}, {5, false}, {9, true}, {9, false}} {
			s.say(beat("pod-1", 7, 0, step.processed))
			if got := store.OnHost("airflow", "pod-1")[0].Moved; got != step.want {
				t.Errorf("heartbeat %d, %d tasks taken: moved %t, want %t", i, step.processed, got, step.want)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

func TestBusiestOfTwinsCounts(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		busyAt := func() bool { return store.OnHost("airflow", "pod-1")[0].Active.N > 0 }
		for round := range 5 {
			s.say(beat("pod-1", 1, 0, 3))
			if round > 0 && !busyAt() {
				t.Errorf("round %d: the idle twin hides the busy one", round)
			}
			time.Sleep(500 * time.Millisecond)
			s.say(beat("pod-1", 1, 1, 9))
			if !busyAt() {
				t.Errorf("round %d: the busy twin was not heard", round)
			}
			time.Sleep(1500 * time.Millisecond)
		}
		s.say(beat("pod-1", 1, 0, 3))
		time.Sleep(2 * time.Second)
		s.say(beat("pod-1", 1, 0, 3))
		if busyAt() {
			t.Error("busy although the busy twin is gone")
		}
	})
}

func TestHeartbeatWithoutCountsIsUnknown(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("pod-1", 7, 0, 0))
		time.Sleep(2 * time.Second)
		asked := beat("pod-1", 7, 0, 0)
		asked.Active, asked.Processed = celery.Number{}, celery.Number{}
		s.say(asked)
		if store.OnHost("airflow", "pod-1")[0].Active.Known {
			t.Error("a heartbeat without counts left the worker's idleness known")
		}
	})
}

func TestWorkersAreForgottenUnlessAPodIsThere(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("gone", 7, 0, 0))
		s.say(beat("kept", 7, 0, 0))
		s.say(beat("unlisted", 7, 0, 0))
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		left := len(store.OnHost("airflow", "kept")) + len(store.OnHost("airflow", "unlisted"))
		if len(store.OnHost("airflow", "gone")) != 0 || left != 2 {
			t.Errorf("after 11 minutes: %v", store.Of(broker))
		}
	})
}

func TestWorkerIsForgottenWithItsPod(t *testing.T) {
	s := newSource()
	s.serves("celery@moved", "celery")
	s.answers["active celery@moved"] = `[{"id": "1", "acknowledged": true, "delivery_info": {"routing_key": "celery"}}]`
	run(t, s, func(store *workers.Store) {
		s.pods.Store(true)
		s.say(beat("moved", 7, 1, 1))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		offline := beat("moved", 7, 1, 1)
		offline.State = monitor.WorkerOffline
		s.say(offline)
		time.Sleep(time.Hour)
		synctest.Wait()
		if tasks := store.Executing(broker); len(tasks) != 1 {
			t.Errorf("while its pod is there, a worker that shuts down executes %v, want its task", tasks)
		}
		s.pods.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if tasks := store.Executing(broker); len(tasks) != 0 {
			t.Errorf("a worker whose pod is gone executes %v", tasks)
		}
	})
}

func TestProcessThatAnotherFollowedIsForgotten(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("kept", 7, 1, 1))
		online := beat("kept", 8, 0, 0)
		online.State = monitor.WorkerOnline
		s.say(online)
		for range 5 {
			time.Sleep(2 * time.Second)
			s.say(beat("kept", 8, 0, 0))
		}
		if got := store.OnHost("airflow", "kept"); len(got) != 1 || got[0].PID != number(8) {
			t.Errorf("workers %+v, want that of process 8 alone", got)
		}
	})
}

func TestWorkersAreAskedWhenSomethingHasChanged(t *testing.T) {
	s := newSource()
	s.answers = map[string]string{
		"active_queues celery@a": `[{"name": "celery", "exchange": {"name": "celery"}, "routing_key": "celery"}]`,
		"stats celery@a":         `{"pool": {"max-concurrency": 4}}`,
		"active celery@a": `[{"id": "1", "args": ["secret"], "acknowledged": true, "delivery_info": {"exchange": "", "routing_key": "celery"}},
			{"id": "2", "acknowledged": false, "delivery_info": {"exchange": "elsewhere", "routing_key": "x"}}]`,
	}
	run(t, s, func(store *workers.Store) {
		tick := func() []string {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			return s.takeAsked()
		}
		expect := func(what string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, tick()); diff != "" {
				t.Errorf("%s: asked (-want +got):\n%s", what, diff)
			}
		}
		s.say(beat("a", 7, 2, 2))
		expect("a new worker", "active_queues celery@a", "stats celery@a", "active celery@a")
		w := store.OnHost("airflow", "a")[0]
		want := []monitor.ExecutingTask{{ID: "1", Queue: "celery", Acknowledged: true}, {ID: "2", Queue: "celery"}}
		if diff := cmp.Diff(want, w.Tasks); diff != "" || w.Slots != number(4) || w.Queues[0].Name != "celery" {
			t.Errorf("slots %v, queues %v, tasks (-want +got):\n%s", w.Slots, w.Queues, diff)
		}
		s.say(beat("a", 7, 2, 2))
		expect("nothing new")
		s.say(beat("a", 7, 2, 3))
		expect("a task was replaced by another", "active celery@a")
		s.say(beat("a", 7, 0, 3))
		expect("nothing executes")
		if tasks := store.Executing(broker); tasks != nil {
			t.Errorf("an idle worker executes %v", tasks)
		}
	})
}

func TestWorkerThatDoesNotAnswerIsAskedLessAndLess(t *testing.T) {
	s := newSource()
	run(t, s, func(*workers.Store) {
		asked := 0
		for second := range 120 {
			s.say(beat("mute", 7, 1, int64(second)))
			time.Sleep(time.Second)
			synctest.Wait()
			for _, question := range s.takeAsked() {
				if strings.HasPrefix(question, "active ") {
					asked++
				}
			}
		}
		if asked < 3 || asked > 12 {
			t.Errorf("a worker that never answers was asked %d times in two minutes", asked)
		}
	})
}

func TestRefusedRemoteControlIsSaid(t *testing.T) {
	s := newSource()
	s.refusal = errors.New("no right to publish")
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 1, 1))
		time.Sleep(time.Second)
		synctest.Wait()
		err := store.Control("airflow")
		if !errors.Is(err, workers.ErrNoControl) || !strings.Contains(err.Error(), "no right to publish") {
			t.Errorf("Control says %v", err)
		}
	})
}

func TestLostConnectionIsTriedAgainAndWorkersGoSilentMeanwhile(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		s.broken <- errors.New("connection reset")
		synctest.Wait()
		if err := store.Listening("airflow"); !errors.Is(err, workers.ErrNotListening) || !strings.Contains(err.Error(), "connection reset") {
			t.Errorf("Listening says %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := store.Listening("airflow"); err != nil {
			t.Errorf("a second after the loss: %v", err)
		}
		s.say(beat("a", 7, 0, 0))
	})
}
