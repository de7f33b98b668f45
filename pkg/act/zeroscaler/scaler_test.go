package zeroscaler_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
)

// expect compares what was said so far.
func expect(t *testing.T, w *world, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, w.log()); diff != "" {
		t.Errorf("what happened (-want +got):\n%s", diff)
	}
}

func TestAMessageWakesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a", "b")
		s := w.start(t)
		if diff := cmp.Diff([]string{"a", "b"}, w.watched[ref()]); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		w.publish(s, "a", 3)
		time.Sleep(10 * time.Millisecond)
		expect(t, w, "1m0s a woke to 3 after 0s")
		if w.hurried != 1 {
			t.Errorf("samples were asked for %d times, want once", w.hurried)
		}
	})
}

func TestABurstIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		s := w.start(t)
		for range 10 {
			w.publish(s, "a", 1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		expect(t, w, "0s a woke to 1 after 0s", "252ms a raised from 1 to 3", "502ms a raised from 3 to 6", "752ms a raised from 6 to 8", "1.002s a raised from 8 to 10")
	})
}

func TestAnIdleTargetGoesToZeroOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.replicas["a"] = 1
		s := w.start(t)
		for range 100 {
			time.Sleep(time.Second)
			s.Sampled(ref())
		}
		expect(t, w, "5.25s a slept from 1: idle for 5s")
	})
}

func TestNobodySleepsWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.replicas["a"], w.leads = 1, false
		s := w.start(t)
		time.Sleep(time.Minute)
		expect(t, w)
		locked(w, func() bool { w.leads = true; return true })
		time.Sleep(2 * time.Second)
		expect(t, w, "1m1.25s a slept from 1: idle for 5s")
		w.publish(s, "a", 1)
		expect(t, w, "1m1.25s a slept from 1: idle for 5s", "1m2s a woke to 1 after 0s")
	})
}

func TestAReplicaThatDoesNotLeadWakesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.leads = false
		s := w.start(t)
		w.publish(s, "a", 1)
		time.Sleep(199 * time.Millisecond)
		expect(t, w)
		time.Sleep(10 * time.Millisecond)
		expect(t, w, "200ms a woke to 1 after 200ms")
	})
}

func TestAReplicaThatBeginsToLeadWakesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a", "b")
		w.leads = false
		s := w.start(t)
		w.publish(s, "a", 1)
		time.Sleep(50 * time.Millisecond)
		expect(t, w)
		locked(w, func() bool { w.leads = true; return true })
		s.Led()
		expect(t, w, "50ms a woke to 1 after 50ms")
	})
}

// TestManyWakesTakeTurns wakes more targets than a second allows for: none waits
// longer than its place in the queue, and each says so.
func TestManyWakesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 3 * zeroscaler.WakesPerSecond {
			names = append(names, fmt.Sprintf("t%02d", i))
		}
		w := newWorld(names...)
		s := w.start(t)
		for _, n := range names {
			w.publish(s, n, 1)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		var woken, waited []string
		for _, line := range w.log() {
			name := strings.Fields(line)[1]
			if strings.Contains(line, "woke") {
				woken = append(woken, name)
			} else {
				waited = append(waited, name)
			}
		}
		if diff := cmp.Diff(names, woken); diff != "" {
			t.Errorf("woken, in order (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(names[zeroscaler.WakesPerSecond:], waited); diff != "" {
			t.Errorf("told to wait (-want +got):\n%s", diff)
		}
		if last := w.log()[len(w.log())-1]; !strings.HasPrefix(last, "2s ") {
			t.Errorf("the last one: %s, want it after 2s", last)
		}
	})
}

func TestAWakeThatIsNotDueAnyMoreLeavesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range zeroscaler.WakesPerSecond + 2 {
			names = append(names, fmt.Sprintf("t%02d", i))
		}
		w := newWorld(names...)
		s := w.start(t)
		for _, n := range names {
			w.publish(s, n, 1)
			synctest.Wait()
		}
		// The first of both that wait is taken care of by somebody else.
		locked(w, func() bool { w.replicas[names[len(names)-2]]++; return true })
		s.Sampled(ref())
		time.Sleep(time.Second)
		if n := len(slices.DeleteFunc(w.log(), func(line string) bool { return !strings.Contains(line, "woke") })); n != len(names)-1 {
			t.Errorf("%d targets woke, want %d:\n%s", n, len(names)-1, strings.Join(w.log(), "\n"))
		}
	})
}

func TestAWriteThatFailsIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		rule string
		err  error
		want []string
	}{
		{"a conflict soon, and nobody is troubled", zeroscaler.ErrConflict, []string{"20ms a woke to 1 after 20ms"}},
		{"an error after a pause", errors.New("the API server hangs"), []string{"0s a: wake failed: the API server hangs", "250ms a woke to 1 after 250ms"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld("a")
				w.refusal = tt.err
				s := w.start(t)
				w.publish(s, "a", 1)
				time.Sleep(300 * time.Millisecond)
				expect(t, w, tt.want...)
			})
		})
	}
}

// TestARefusedSleepBeginsTheWindowAnew has the webhook know better.
func TestARefusedSleepBeginsTheWindowAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.replicas["a"] = 1
		w.refusal = &zeroscaler.RefusedError{Message: "queue redis/a: 1 message waits"}
		s := w.start(t)
		for range 15 {
			time.Sleep(time.Second)
			s.Sampled(ref())
		}
		expect(t, w, "5.25s a refused, work: queue redis/a: 1 message waits", "10.75s a slept from 1: idle for 5s")
	})
}

// TestAConflictOnTheWayToZeroCostsTheLooksAlone has somebody else write the target.
func TestAConflictOnTheWayToZeroCostsTheLooksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.replicas["a"], w.refusal = 1, zeroscaler.ErrConflict
		w.start(t)
		time.Sleep(7 * time.Second)
		expect(t, w, "5.52s a slept from 1: idle for 5s")
	})
}

func TestAMistakeIsSaidAndNothingDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		s := w.start(t)
		wrong := w.targets[0]
		wrong.Zero.Mistake = errors.New("two HPAs scale it")
		w.set(wrong)
		synctest.Wait()
		w.publish(s, "a", 1)
		expect(t, w, "0s a: two HPAs scale it")
		if len(w.watched[ref()]) != 0 {
			t.Errorf("%v are watched for a target about which nothing is done", w.watched[ref()])
		}
	})
}

// TestATargetThatCannotBeReadIsAMistakeInTheEnd has what the HPA scales not exist.
func TestATargetThatCannotBeReadIsAMistakeInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.lost = errors.New("it does not exist")
		s := w.start(t)
		time.Sleep(20 * time.Second)
		expect(t, w, "5s a: it does not exist")
		locked(w, func() bool { w.lost = nil; return true })
		w.publish(s, "a", 1)
		time.Sleep(2 * time.Second)
		expect(t, w, "5s a: it does not exist", "21s a woke to 1 after 0s")
	})
}

// TestMetricsOfOthersKeepATargetAwakeForEver says so, and wakes all the same.
func TestMetricsOfOthersKeepATargetAwakeForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.replicas["a"], w.targets[0].Foreign = 1, []string{"Resource cpu"}
		s := w.start(t)
		time.Sleep(time.Minute)
		const said = "0s a: the HPA also scales on Resource cpu, of which celery-hpa knows nothing: it never concludes that there is nothing to do"
		expect(t, w, said)
		locked(w, func() bool { w.replicas["a"] = 0; return true })
		s.Resized("airflow", "a")
		time.Sleep(time.Second)
		w.publish(s, "a", 2)
		expect(t, w, said, "1m1s a woke to 2 after 0s")
	})
}

func TestATargetThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a", "b")
		w.start(t)
		w.set(w.targets[1])
		synctest.Wait()
		expect(t, w, "0s a forgotten")
		if diff := cmp.Diff([]string{"b"}, w.watched[ref()]); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
	})
}

func TestABrokerRestsWhileAllSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a", "b")
		s := w.start(t)
		if !s.Rests(ref()) {
			t.Error("both sleep, and the broker does not rest")
		}
		w.publish(s, "b", 1)
		time.Sleep(10 * time.Millisecond)
		if s.Rests(ref()) {
			t.Error("one is awake, and the broker rests")
		}
	})
}
