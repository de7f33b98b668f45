package workers_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// sample is one of two queues with these backlogs and nothing in flight.
func sample(backlogs ...int64) *queue.Sample {
	s := &queue.Sample{At: time.Now(), Queues: map[string]queue.Depth{}}
	for i, n := range backlogs {
		now := time.Now()
		s.Queues[[]string{"celery", "other"}[i]] = queue.Depth{
			Backlog: queue.Known(n, now), InFlight: queue.Known(0, now), Scheduled: queue.Known(0, now),
		}
	}
	return s
}

// serves has a worker answer which queues it serves.
func (s *source) serves(node string, queues ...string) {
	content := `[{"name": "` + strings.Join(queues, `"}, {"name": "`) + `"}]`
	s.answers["active_queues "+node] = content
	s.answers["stats "+node] = `{"pool": {"max-concurrency": 2}}`
}

// work has a worker with two slots execute tasks of a length, as many as there is
// time for, and send heartbeats.
func (s *source) work(host string, length, total time.Duration) {
	start := time.Now()
	for {
		since := time.Since(start)
		if since >= total {
			return
		}
		begun := 2 * (int64(since/length) + 1)
		s.say(beat(host, 7, 2, begun))
		time.Sleep(2 * time.Second)
	}
}

func TestTimesFollowWhatWorkersDo(t *testing.T) {
	for _, length := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 40 * time.Second} {
		t.Run(length.String(), func(t *testing.T) {
			s := newSource()
			s.serves("celery@a", "celery", "other")
			run(t, s, func(store *workers.Store) {
				s.say(beat("a", 7, 0, 0))
				time.Sleep(2 * time.Second)
				s.work("a", length, max(30*length, time.Minute))
				got := sample(60, 40)
				store.AddTimes(broker, got, time.Now())
				d := got.Queues["celery"]
				if err := errors.Join(d.Wait.Err, d.Work.Err); err != nil {
					t.Fatal(err)
				}
				// Two slots take two tasks in each length of a task, of both queues.
				expect(t, "wait", float64(d.Wait.N)/1000, 100/2*length.Seconds())
				expect(t, "work", float64(d.Work.N)/1000, 60*length.Seconds())
			})
		})
	}
}

// expect allows a tenth.
func expect(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > want/10 {
		t.Errorf("%s is %.2f s, want %.2f s", what, got, want)
	}
}

func TestTimesAreUnknownUntilTasksWereExecuted(t *testing.T) {
	s := newSource()
	s.serves("celery@a", "celery")
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 2, 2))
		time.Sleep(2 * time.Second)
		s.say(beat("a", 7, 2, 2))
		got := sample(3)
		store.AddTimes(broker, got, time.Now())
		d := got.Queues["celery"]
		if d.Wait.Err == nil || !strings.Contains(d.Wait.Err.Error(), "no task has ended") {
			t.Errorf("wait is %d, %v", d.Wait.N, d.Wait.Err)
		}
		if d.Work.Err == nil || !strings.Contains(d.Work.Err.Error(), "too few tasks") {
			t.Errorf("work is %d, %v", d.Work.N, d.Work.Err)
		}
	})
}

func TestTimesOfAnEmptyQueueAreZero(t *testing.T) {
	got := sample(0)
	workers.NewStore().AddTimes(broker, got, time.Now())
	if d := got.Queues["celery"]; d.Wait.Err != nil || d.Wait.N != 0 || d.Work.Err != nil || d.Work.N != 0 {
		t.Errorf("wait %d, %v, work %d, %v; want both 0", d.Wait.N, d.Wait.Err, d.Work.N, d.Work.Err)
	}
}

func TestUnknownWorkersMakeTimesUnknown(t *testing.T) {
	s := newSource()
	s.refusal = errors.New("no right to publish")
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 2, 2))
		time.Sleep(time.Second)
		synctest.Wait()
		got := sample(3)
		store.AddTimes(broker, got, time.Now())
		if err := got.Queues["celery"].Work.Err; !errors.Is(err, workers.ErrNoControl) || !strings.Contains(err.Error(), "no right to publish") {
			t.Errorf("work of a queue whose workers are not known: %v", err)
		}
	})
}

func TestGapInHeartbeatsAddsNothing(t *testing.T) {
	s := newSource()
	s.serves("celery@a", "celery")
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		time.Sleep(2 * time.Second)
		s.work("a", time.Second, time.Minute)
		time.Sleep(5 * time.Minute)
		s.say(beat("a", 7, 2, 5000))
		got := sample(10)
		store.AddTimes(broker, got, time.Now())
		expect(t, "work", float64(got.Queues["celery"].Work.N)/1000, 10)
	})
}

// A queue that is left alone for the night is known in the morning, one that is gone is
// not remembered for ever.
func TestQueueThatNobodyServesIsForgotten(t *testing.T) {
	for _, tt := range []struct {
		away  time.Duration
		known bool
	}{{24 * time.Hour, true}, {49 * time.Hour, false}} {
		t.Run(tt.away.String(), func(t *testing.T) {
			s := newSource()
			s.serves("celery@a", "celery")
			run(t, s, func(store *workers.Store) {
				s.say(beat("a", 7, 0, 0))
				time.Sleep(2 * time.Second)
				s.work("a", time.Second, time.Minute)
				time.Sleep(tt.away)
				synctest.Wait()
				s.say(beat("a", 8, 0, 0))
				time.Sleep(2 * time.Second)
				s.say(beat("a", 8, 0, 0))
				got := sample(10)
				store.AddTimes(broker, got, time.Now())
				if err := got.Queues["celery"].Work.Err; (err == nil) != tt.known {
					t.Errorf("work is known: %v", err)
				}
			})
		})
	}
}

func TestQueueOfAWorkerOfItsOwnIsNotFollowed(t *testing.T) {
	s := newSource()
	s.serves("celery@a", "celery", "celery@a.dq2")
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		time.Sleep(2 * time.Second)
		s.work("a", time.Second, time.Minute)
		got := sample(10)
		got.Queues["celery@a.dq2"] = got.Queues["celery"]
		store.AddTimes(broker, got, time.Now())
		expect(t, "work", float64(got.Queues["celery"].Work.N)/1000, 10)
		if err := got.Queues["celery@a.dq2"].Work.Err; err == nil {
			t.Error("work of the worker's own queue is known")
		}
	})
}

func TestDeclaredFleetsNeedNoRemoteControl(t *testing.T) {
	s := newSource()
	s.refusal = errors.New("no right to publish")
	s.declared = map[string]workers.Declaration{
		"early": {Queues: []string{"celery"}}, "late": {Queues: []string{"celery"}, AcksLate: true}, "several": {Queues: []string{"celery", "other"}},
	}
	run(t, s, func(store *workers.Store) {
		for host := range s.declared {
			s.say(beat(host, 7, 2, 2))
		}
		want := []monitor.ExecutingTask{{ID: "celery@early 7 0", Queue: "celery", Acknowledged: true}, {ID: "celery@early 7 1", Queue: "celery", Acknowledged: true}}
		if diff := cmp.Diff(want, store.Executing(broker)); diff != "" {
			t.Errorf("executing (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Second)
		s.work("early", time.Second, time.Minute)
		got := sample(10)
		store.AddTimes(broker, got, time.Now())
		expect(t, "work", float64(got.Queues["celery"].Work.N)/1000, 10)
	})
}
