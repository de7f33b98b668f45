package workers_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// fate is what happens to tasks of queue celery after ten of them have waited, with two
// workers, a and b, that were heard a moment before.
type fate struct {
	t     *testing.T
	s     *source
	store *workers.Store
}

// wait lets time pass.
func (f fate) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// executes has a worker answer from now on that it executes n tasks of queue celery.
func (f fate) executes(host string, n int, acknowledged bool) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	content := ""
	for i := range n {
		content += fmt.Sprintf(`, {"id": "%s%d", "acknowledged": %t, "delivery_info": {"routing_key": "celery"}}`, host, i, acknowledged)
	}
	f.s.answers["active celery@"+host] = "[" + content[min(1, len(content)):] + "]"
}

// count is how much there is to do when the broker holds some tasks.
func (f fate) count(held int64) queue.Count {
	got := sample(held)
	d := got.Queues["celery"]
	told := f.store.Executing(broker)
	for _, e := range told {
		if e.Acknowledged {
			d.InFlight.N++
		}
	}
	got.Queues["celery"] = d
	f.store.AddBegun(broker, got, told, time.Now())
	return got.Queues["celery"].Tasks()
}

// want says how much there is to do when the broker holds some tasks, and how many each
// worker may have begun.
func (f fate) want(rule string, held, tasks, a, b int64) {
	f.t.Helper()
	work := f.count(held)
	begun := func(host string) int64 { return f.store.OnHost("airflow", host)[0].Begun }
	if work.Err != nil || work.N != tasks || begun("a") != a || begun("b") != b {
		f.t.Errorf("%s: %d tasks, of which a may have begun %d and b %d, want %d, %d and %d", rule, work.N, begun("a"), begun("b"), tasks, a, b)
	}
}

// live has each of these happen.
func live(t *testing.T, rules map[string]func(f fate)) {
	t.Helper()
	for rule, happens := range rules {
		t.Run(rule, func(t *testing.T) {
			s := newSource()
			s.serves("celery@a", "celery")
			s.serves("celery@b", "celery")
			run(t, s, func(store *workers.Store) {
				f := fate{t, s, store}
				s.say(beat("a", 7, 0, 0))
				s.say(beat("b", 7, 0, 0))
				f.wait(time.Second)
				f.want("all wait", 10, 10, 0, 0)
				happens(f)
			})
		})
	}
}

func TestTasksAreNotGoneBeforeTheirWorkersWereHeard(t *testing.T) {
	live(t, map[string]func(f fate){
		"they have begun": func(f fate) {
			f.executes("a", 4, true)
			f.executes("b", 6, true)
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 4, 4))
			f.want("a is busy, and was not asked yet", 0, 10, 10, 10)
			f.wait(time.Second)
			f.want("a has told, b was not heard", 0, 10, 0, 6)
			f.s.say(beat("b", 7, 6, 6))
			f.wait(time.Second)
			f.want("both have told", 0, 10, 0, 0)
		},
		"they have ended already": func(f fate) {
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 4))
			f.want("b was not heard", 0, 10, 0, 10)
			f.s.say(beat("b", 7, 0, 6))
			f.want("both were heard, and execute nothing", 0, 0, 0, 0)
		},
		"they leave one after the other": func(f fate) {
			f.want("four have left", 6, 10, 4, 4)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 4))
			f.s.say(beat("b", 7, 0, 0))
			f.want("six more have left, and the four were ended", 0, 6, 6, 6)
		},
		"some are told of, and have ended": func(f fate) {
			f.executes("a", 4, true)
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 4, 4))
			f.wait(time.Second)
			f.want("a has told, b was not heard", 0, 10, 0, 6)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 4))
			f.want("those of a have ended", 0, 6, 0, 6)
		},
		"one is told of as another leaves": func(f fate) {
			f.want("one has left", 9, 10, 1, 1)
			f.executes("a", 1, true)
			f.wait(1500 * time.Millisecond)
			f.s.say(beat("a", 7, 1, 1))
			f.s.say(beat("b", 7, 0, 0))
			f.wait(time.Second)
			f.want("a has told of it, and b has taken another", 8, 10, 1, 1)
			f.executes("b", 1, true)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 1, 1))
			f.s.say(beat("b", 7, 1, 1))
			f.wait(time.Second)
			f.want("b has told of that", 8, 10, 0, 0)
		},
	})
}

func TestTasksThatComeMeanwhileAreNoMoreThanThereWere(t *testing.T) {
	live(t, map[string]func(f fate){
		"they come and go": func(f fate) {
			f.want("all have left", 0, 10, 10, 10)
			f.want("ten have come", 10, 10, 0, 0)
			f.want("and have left", 0, 10, 10, 10)
		},
		"fewer come and go later": func(f fate) {
			f.want("all have left", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 5))
			f.s.say(beat("b", 7, 0, 5))
			f.want("all have ended", 0, 0, 0, 0)
			for range 2 {
				f.want("three have come", 3, 3, 0, 0)
				f.want("and have left", 0, 3, 3, 3)
			}
		},
		"others come meanwhile": func(f fate) {
			f.want("four have left", 6, 10, 4, 4)
			f.want("three have come", 9, 10, 1, 1)
			f.want("and three more", 12, 12, 0, 0)
			f.want("all have left", 0, 12, 12, 12)
		},
	})
}

// Tasks that end before their workers tell of them leave again and again: they are not taken
// for as many as there once were.
func TestAStreamOfShortTasksIsCountedByWhatThereWasLately(t *testing.T) {
	live(t, map[string]func(f fate){
		"two come and go in each second": func(f fate) {
			early, late := int64(0), int64(0)
			for second := range int64(90) {
				f.s.say(beat("a", 7, 0, second))
				f.s.say(beat("b", 7, 0, second))
				f.wait(time.Second)
				most := max(f.count(2).N, f.count(0).N)
				switch {
				case second > 35 && second < 55:
					early = max(early, most)
				case second > 65:
					late = max(late, most)
				}
			}
			if early != 4 || late != 2 {
				f.t.Errorf("up to %d tasks are counted within a minute, and %d later; want 4, since there were ten, and 2", early, late)
			}
		},
	})
}

func TestWhoIsWaitedFor(t *testing.T) {
	live(t, map[string]func(f fate){
		"a heartbeat was on its way when they left": func(f fate) {
			f.want("all have left the broker", 0, 10, 10, 10)
			f.s.say(beat("a", 7, 0, 0))
			f.s.say(beat("b", 7, 0, 0))
			f.want("it may be from before", 0, 10, 10, 10)
		},
		"a worker falls silent": func(f fate) {
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(5 * time.Second)
			f.s.say(beat("a", 7, 0, 0))
			f.want("b may have gone silent because it works", 0, 10, 0, 10)
			f.wait(2 * time.Second)
			f.want("it counts as busy by its silence", 0, 0, 0, 0)
		},
		"a worker serves another queue": func(f fate) {
			f.s.serves("celery@b", "other")
			f.wait(time.Minute) // until it is asked again
			f.s.say(beat("a", 7, 0, 0))
			f.s.say(beat("b", 7, 0, 0))
			f.wait(time.Second)
			f.want("all have left the broker", 0, 10, 10, 0)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 0))
			f.want("a was heard", 0, 0, 0, 0)
		},
		"nobody knows what another worker serves": func(f fate) {
			f.s.say(beat("c", 7, 0, 0))
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 5))
			f.s.say(beat("b", 7, 0, 5))
			f.want("it may execute all", 0, 10, 0, 0)
			f.s.say(beat("c", 7, 0, 0))
			f.want("it was heard, too", 0, 0, 0, 0)
		},
		"another worker is declared to acknowledge late": func(f fate) {
			f.s.declared = map[string]workers.Declaration{"c": {Queues: []string{"celery"}, AcksLate: true}}
			f.s.say(beat("c", 7, 0, 0))
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 0, 5))
			f.s.say(beat("b", 7, 0, 5))
			f.want("what it executes would be on the broker", 0, 0, 0, 0)
		},
	})
}

func TestAnAnswerIsWaitedForWhileItIsToBeExpected(t *testing.T) {
	live(t, map[string]func(f fate){
		"a worker answers late": func(f fate) {
			f.want("all have left the broker", 0, 10, 10, 10)
			f.wait(time.Second)
			f.s.say(beat("a", 7, 4, 4))
			f.s.say(beat("b", 7, 0, 6))
			f.want("a was not asked yet", 0, 10, 10, 0)
			f.wait(2 * time.Second)
			f.s.say(beat("a", 7, 4, 4))
			f.s.say(beat("b", 7, 0, 6))
			f.want("it has not answered", 0, 10, 10, 0)
			f.executes("a", 4, true)
			f.wait(2 * time.Second)
			f.s.say(beat("a", 7, 4, 4))
			f.s.say(beat("b", 7, 0, 6))
			f.want("it has answered", 0, 4, 0, 0)
		},
		"a worker never answers": func(f fate) {
			f.want("all have left the broker", 0, 10, 10, 10)
			for range 8 {
				f.wait(2 * time.Second)
				f.s.say(beat("a", 7, 4, 4))
				f.s.say(beat("b", 7, 0, 6))
			}
			f.want("it is heard to be busy, and will not say with what", 0, 0, 0, 0)
		},
	})
}

func TestWhatIsAcknowledgedLateHasEndedWhenItLeaves(t *testing.T) {
	live(t, map[string]func(f fate){
		"tasks are acknowledged late": func(f fate) {
			f.executes("a", 4, false)
			f.s.say(beat("a", 7, 4, 4))
			f.wait(time.Second)
			f.want("all are on the broker", 10, 10, 0, 0)
			f.want("what has left has ended", 6, 6, 0, 0)
		},
		"some tasks are acknowledged late": func(f fate) {
			f.executes("a", 4, false)
			f.executes("b", 1, true)
			f.s.say(beat("a", 7, 4, 4))
			f.s.say(beat("b", 7, 1, 1))
			f.wait(time.Second)
			f.want("all but one are on the broker", 9, 10, 0, 0)
			f.want("what has left may have begun", 5, 10, 4, 4)
		},
	})
}

func TestTasksAreGoneWhereNoWorkerLives(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		offline := beat("a", 7, 0, 0)
		offline.State = monitor.WorkerOffline
		s.say(offline)
		f := fate{t, s, store}
		f.executes("a", 0, true)
		s.say(beat("b", 7, 0, 0))
		time.Sleep(7 * time.Second)
		f.want("all wait", 10, 10, 0, 0)
		f.want("a queue is purged, or taken by a worker whose first word is on its way", 0, 10, 10, 10)
		f.wait(time.Second)
		f.want("nobody has spoken up", 0, 0, 0, 0)
	})
}

func TestUnknownCountStaysUnknown(t *testing.T) {
	s := newSource()
	run(t, s, func(store *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		store.AddBegun(broker, sample(10), nil, time.Now())
		got := sample(0)
		reason := errors.New("no right to read")
		d := got.Queues["celery"]
		d.InFlight = queue.Unknown(reason)
		got.Queues["celery"] = d
		store.AddBegun(broker, got, nil, time.Now())
		if d := got.Queues["celery"]; !errors.Is(d.InFlight.Err, reason) {
			t.Errorf("in flight is %+v", d.InFlight)
		}
		time.Sleep(time.Second)
		s.say(beat("a", 7, 0, 0))
		got = sample(0)
		store.AddBegun(broker, got, nil, time.Now())
		if n := got.Queues["celery"].InFlight.N; n != 10 {
			t.Errorf("after a sample with an unknown count %d are in flight, want the ten that have left since", n)
		}
	})
}
