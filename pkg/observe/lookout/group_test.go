package lookout_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

var ref = queue.BrokerRef{Namespace: "airflow", Name: "prod"}

type bench struct {
	station *station
	ledger  *ledger
	group   *lookout.Group
	log     *strings.Builder
}

func (b *bench) spec(fingerprint string, s *station) lookout.Spec {
	return lookout.Spec{
		Ref: ref, Budget: 20_000, Fingerprint: fingerprint,
		Open: func() (lookout.Source, error) { return s, nil },
	}
}

// watch replaces the queues and waits until nothing more happens at this time.
func (b *bench) watch(names ...string) {
	b.group.Watch(ref, names)
	synctest.Wait()
}

// pass lets some time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// run applies one broker, as prepare has left it, and runs body in a bubble of
// synthetic time.
func run(t *testing.T, prepare func(*station), body func(t *testing.T, ctx context.Context, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := &bench{station: newStation(t), ledger: &ledger{}, log: &strings.Builder{}}
		b.group = lookout.NewGroup(b.ledger, b.ledger, slog.New(slog.NewTextHandler(b.log, nil)))
		prepare(b.station)
		b.group.Apply(ctx, []lookout.Spec{b.spec("1", b.station)})
		synctest.Wait()
		body(t, ctx, b)
		cancel()
		b.group.Wait()
		if b.station.open() != 0 || !b.station.closed {
			t.Errorf("at the end %d lines are open and the source is closed: %v", b.station.open(), b.station.closed)
		}
	})
}

func telling(*station)  {}
func polled(s *station) { s.mute = errors.New("the server is too old") }

// since returns the names of the queues of each read after the first n.
func (b *bench) since(n int) [][]string {
	var names [][]string
	for _, r := range b.station.reads()[n:] {
		names = append(names, r.queues)
	}
	return names
}

func TestNothingIsConnectedWhileNothingIsWatched(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		pass(time.Hour)
		if n := b.station.opened(); n != 0 {
			t.Fatalf("%d lines were opened for nothing", n)
		}
		b.watch("a")
		if n := b.station.open(); n != 1 {
			t.Fatalf("%d lines are open, want 1", n)
		}
		b.watch()
		pass(29 * time.Second)
		b.watch("a")
		pass(time.Hour)
		b.watch()
		pass(29 * time.Second)
		if n := b.station.opened(); n != 1 || b.station.open() != 1 {
			t.Errorf("%d lines were opened for a set that was empty for 29 s, want the first to be kept", n)
		}
		pass(2 * time.Second)
		if n := b.station.open(); n != 0 {
			t.Errorf("%d lines are open with nothing to watch for 31 s", n)
		}
		b.watch("a")
		if n := b.station.open(); n != 1 {
			t.Errorf("%d lines are open after queues came back, want 1", n)
		}
	})
}

func TestWhatIsToldIsReadAtOnceAndAlone(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("c", "a", "b", "a")
		if diff := cmp.Diff([][]string{{"a", "b", "c"}}, b.since(0)); diff != "" {
			t.Errorf("at first (-want +got)\n%s", diff)
		}
		pass(time.Hour)
		b.station.write("b", 3)
		synctest.Wait() // no time passes
		b.station.write("unwatched", 1)
		pass(time.Hour)
		if diff := cmp.Diff([][]string{{"b"}}, b.since(1)); diff != "" {
			t.Errorf("after a message (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff([]int64{0, 3}, b.ledger.counts("b")); diff != "" {
			t.Errorf("counts of b (-want +got)\n%s", diff)
		}
		if got := b.station.reads()[1].at; !got.Equal(b.station.reads()[0].at.Add(time.Hour)) {
			t.Errorf("read at %s, want at the moment of the message", got)
		}
		b.station.write("b", 1)
		pass(time.Hour)
		b.station.write("b", 0) // one came, and one went
		pass(time.Hour)
		if diff := cmp.Diff([]int64{0, 3, 4, 4}, b.ledger.counts("b")); diff != "" {
			t.Errorf("counts of b after the next (-want +got)\n%s", diff)
		}
		b.station.write("b", -4)
		pass(time.Hour)
		b.station.write("b", 0)
		pass(time.Hour)
		if diff := cmp.Diff([]int64{0, 3, 4, 4, 0, 0}, b.ledger.counts("b")); diff != "" {
			t.Errorf("counts of b at last (-want +got)\n%s", diff)
		}
	})
}

func TestToldOfAllReadsAll(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a", "b")
		pass(time.Second)
		b.station.tellAll()
		pass(time.Second)
		if diff := cmp.Diff([][]string{{"a", "b"}}, b.since(1)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestAQueueIsReadWhenItIsAddedAndForgottenWhenItIsGone(t *testing.T) {
	for name, kind := range map[string]func(*station){"telling": telling, "polled": polled} {
		t.Run(name, func(t *testing.T) {
			run(t, kind, func(t *testing.T, _ context.Context, b *bench) {
				b.watch("a", "b")
				pass(10 * time.Millisecond)
				b.watch("b", "c")
				if diff := cmp.Diff([][]string{{"c"}}, b.since(1)); diff != "" {
					t.Errorf("added (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff([]string{"a"}, b.station.lines[0].forgotten); diff != "" {
					t.Errorf("forgotten (-want +got)\n%s", diff)
				}
				pass(time.Second)
				before := len(b.ledger.counts("a"))
				b.station.set(func() { b.station.lines[0].tell([]string{"a"}) }) // it was under way
				b.station.write("a", 1)
				pass(time.Second)
				if n := len(b.ledger.counts("a")); n != before {
					t.Errorf("a was read %d times after it was removed", n-before)
				}
			})
		})
	}
}

func TestABurstCostsFewReadsAndItsEndIsSeen(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a", "b")
		pass(time.Second)
		for range 1000 {
			b.station.write("a", 1)
			pass(100 * time.Microsecond)
		}
		pass(time.Second)
		reads := b.station.reads()[1:]
		if len(reads) < 15 || len(reads) > 21 {
			t.Errorf("%d reads for messages within 100 ms, want one each 5 ms", len(reads))
		}
		for i := 1; i < len(reads); i++ {
			if gap := reads[i].at.Sub(reads[i-1].at); gap < 5*time.Millisecond {
				t.Errorf("reads %d and %d are %s apart", i-1, i, gap)
			}
		}
		if got := b.ledger.last()["a"]; got != 1000 {
			t.Errorf("at the end %d messages are known, want 1000", got)
		}
	})
}

func TestAMessageThatArrivesDuringAReadIsSeen(t *testing.T) {
	run(t, func(s *station) { s.slowness = time.Second }, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(time.Second / 2)
		b.station.write("a", 1)
		pass(2 * time.Second)
		if diff := cmp.Diff([]int64{0, 1}, b.ledger.counts("a")); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestALineThatFailsIsReplacedAndTheNewOneReadsAll(t *testing.T) {
	for name, kind := range map[string]func(*station){"telling": telling, "polled": polled} {
		t.Run(name, func(t *testing.T) {
			run(t, kind, func(t *testing.T, _ context.Context, b *bench) {
				b.watch("a", "b")
				pass(time.Minute)
				b.station.cut()
				b.station.write("a", 1) // while nobody hears it
				pass(time.Second)
				if n := b.station.opened(); n != 2 || b.station.open() != 1 {
					t.Fatalf("%d lines were opened and %d are open, want 2 and 1", n, b.station.open())
				}
				if got := b.station.reads()[0].queues; !slices.Equal(got, []string{"a", "b"}) {
					t.Errorf("the new line began with %v, want all", got)
				}
				if got := b.ledger.last()["a"]; got != 1 {
					t.Errorf("%d messages are known, want 1", got)
				}
				b.logged(t, 1, 1)
			})
		})
	}
}

func TestALineThatFailsNowAndThenIsReplacedAsSoonAsTheFirstWas(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		for n := range 10 {
			pass(time.Minute)
			b.station.cut()
			pass(101 * time.Millisecond)
			if b.station.open() != 1 {
				t.Errorf("100 ms after failure %d there is no line", n+1)
			}
		}
	})
}

// logged compares how often the beginning of a failure and its end were logged.
func (b *bench) logged(t *testing.T, begins, ends int) {
	t.Helper()
	if got := strings.Count(b.log.String(), "cannot be watched"); got != begins {
		t.Errorf("a failure was logged %d times, want %d:\n%s", got, begins, b.log)
	}
	if got := strings.Count(b.log.String(), "are watched again"); got != ends {
		t.Errorf("its end was logged %d times, want %d:\n%s", got, ends, b.log)
	}
}

func TestABrokerThatRefusesIsTriedEverLessOftenAndItsReturnIsNoticed(t *testing.T) {
	run(t, func(s *station) { s.refusal = errors.New("connection refused") }, func(t *testing.T, _ context.Context, b *bench) {
		began := time.Now()
		b.watch("a")
		b.watch("a", "b") // no reason to hurry
		pass(20*time.Second + time.Millisecond)
		var at []time.Duration
		for _, attempt := range b.station.attempts[:7] {
			at = append(at, attempt.Sub(began).Round(time.Millisecond))
		}
		want := []time.Duration{
			0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond,
			1500 * time.Millisecond, 3100 * time.Millisecond, 5100 * time.Millisecond,
		}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("attempts (-want +got)\n%s", diff)
		}
		if b.ledger.failures != len(b.station.attempts) {
			t.Errorf("%d of %d failures were recorded", b.ledger.failures, len(b.station.attempts))
		}
		b.logged(t, 1, 0)
		b.station.set(func() { b.station.refusal = nil })
		pass(2 * time.Second)
		if n := b.station.open(); n != 1 {
			t.Errorf("%d lines are open two seconds after the return", n)
		}
		b.logged(t, 1, 1)
	})
}

func TestALineThatIsOfNoUseFromTheStartIsNoReasonToHurry(t *testing.T) {
	run(t, func(s *station) { s.slowness = 15 * time.Millisecond }, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		for range 2000 {
			b.station.cut()
			pass(10 * time.Millisecond)
		}
		if n := b.station.opened(); n < 10 || n > 16 {
			t.Errorf("%d lines were opened within 20 s, want at most one each 2 s but for the first few", n)
		}
		b.logged(t, 1, 0)
	})
}

func TestAReadThatHangsIsCutOff(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(time.Second)
		b.station.set(func() { b.station.slowness = time.Hour })
		b.station.write("a", 1)
		synctest.Wait()
		b.station.set(func() { b.station.slowness = 0 })
		pass(4 * time.Second)
		if n := b.station.opened(); n != 1 {
			t.Errorf("%d lines after 4 s, want the first to be given time", n)
		}
		pass(2 * time.Second)
		if n := b.station.opened(); n != 2 || b.ledger.last()["a"] != 1 {
			t.Errorf("%d lines, last count %d, want a second line that has read the message", n, b.ledger.last()["a"])
		}
	})
}

func TestALineThatFailsDuringAReadDoesNotWaitForIt(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(time.Second)
		b.station.set(func() { b.station.slowness = time.Hour })
		b.station.write("a", 1)
		synctest.Wait()
		b.station.set(func() { b.station.slowness = 0 })
		b.station.cut()
		pass(time.Second)
		if got := b.ledger.last()["a"]; got != 1 {
			t.Errorf("last count %d, want 1", got)
		}
	})
}

func TestToStopIsNoFailure(t *testing.T) {
	for name, kind := range map[string]func(*station){"telling": telling, "polled": polled} {
		t.Run(name, func(t *testing.T) {
			var stopped *bench
			run(t, kind, func(_ *testing.T, _ context.Context, b *bench) {
				b.watch("a")
				b.station.set(func() { b.station.slowness = time.Hour })
				b.station.write("a", 1)
				pass(100 * time.Millisecond) // a read is under way
				stopped = b
			})
			if stopped.ledger.failures != 0 {
				t.Errorf("%d failures were recorded", stopped.ledger.failures)
			}
			stopped.logged(t, 0, 0)
		})
	}
}

func TestHowMessagesAreNoticedIsToldAndLoggedWhenItChanges(t *testing.T) {
	run(t, polled, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(time.Minute)
		b.station.cut()
		pass(time.Minute)
		b.station.set(func() { b.station.mute = nil })
		b.station.cut()
		pass(time.Minute)
		want := []string{"the server is too old", "the server is too old", "told"}
		if diff := cmp.Diff(want, b.ledger.ways); diff != "" {
			t.Errorf("recorded (-want +got)\n%s", diff)
		}
		if n := strings.Count(b.log.String(), "the server is too old"); n != 1 {
			t.Errorf("the reason was logged %d times, want once:\n%s", n, b.log)
		}
		if n := strings.Count(b.log.String(), "tells of messages"); n != 1 {
			t.Errorf("that it tells was logged %d times, want once:\n%s", n, b.log)
		}
	})
}

func TestCoveredIsWhatIsReadAndHeard(t *testing.T) {
	type step struct {
		what string
		do   func(b *bench)
		want bool
	}
	break1 := func(b *bench) { b.station.set(func() { b.station.broken["a"] = true }) }
	mend := func(b *bench) { b.station.set(func() { b.station.broken["a"] = false }); pass(2 * time.Second) }
	slow := func(d time.Duration) func(b *bench) {
		return func(b *bench) { b.station.set(func() { b.station.slowness = d }) }
	}
	for _, c := range []struct {
		rule  string
		kind  func(*station)
		steps []step
	}{
		{"a broker that tells", telling, []step{
			{"nothing watched", func(*bench) {}, false},
			{"read", func(b *bench) { b.watch("a", "b") }, true},
			{"an hour later", func(*bench) { pass(time.Hour) }, true},
			{"one added and not read yet", func(b *bench) { slow(time.Second)(b); b.watch("a", "b", "c") }, false},
			{"read as well", func(*bench) { pass(2 * time.Second) }, true},
			{"one removed", func(b *bench) { b.watch("a", "b") }, true},
			{"told, before it is read", func(b *bench) { b.station.write("a", 1); synctest.Wait() }, true},
			{"all removed", func(b *bench) { b.watch(); pass(2 * time.Second) }, false},
		}},
		{"a line that fails", telling, []step{
			{"read", func(b *bench) { b.watch("a") }, true},
			{"cut", func(b *bench) { b.station.cut(); synctest.Wait() }, false},
			{"a new one", func(*bench) { pass(time.Second) }, true},
		}},
		{"a queue that cannot be read may not be told either", telling, []step{
			{"unreadable", func(b *bench) { break1(b); b.watch("a", "b") }, false},
			{"mended", mend, true},
		}},
		{"nobody minds a queue that is no longer watched", telling, []step{
			{"unreadable", func(b *bench) { break1(b); b.watch("a", "b") }, false},
			{"removed", func(b *bench) { b.watch("b") }, true},
		}},
		{"a broker that is asked", polled, []step{
			{"read", func(b *bench) { b.watch("a") }, true},
			{"a minute later", func(*bench) { pass(time.Minute) }, true},
			{"too slow", func(b *bench) { slow(2 * time.Second)(b); pass(1200 * time.Millisecond) }, false},
			{"swift again", func(b *bench) { slow(0)(b); pass(3 * time.Second) }, true},
			{"unreadable", func(b *bench) { break1(b); pass(time.Second) }, false},
			{"mended", mend, true},
		}},
		{"too many for the budget", polled, []step{
			{"read", func(b *bench) { b.watch(manyNames(60_000)...) }, true},
			{"more than a second later", func(*bench) { pass(2 * time.Second) }, false},
		}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			run(t, c.kind, func(t *testing.T, _ context.Context, b *bench) {
				for _, s := range c.steps {
					s.do(b)
					if got := b.group.Covers(ref); got != s.want {
						t.Errorf("%s: covered is %v, want %v", s.what, got, s.want)
					}
				}
			})
		})
	}
}

func TestCoverEndsWithTheCallThatAddsAQueue(t *testing.T) {
	run(t, telling, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		b.group.Watch(ref, []string{"a", "b"}) // the loop has had no time to see it
		if b.group.Covers(ref) {
			t.Error("covered before the new queue was read")
		}
		if b.group.Covers(queue.BrokerRef{Name: "other"}) {
			t.Error("a broker that nobody knows is covered")
		}
	})
}

func TestAChangedBrokerKeepsItsQueuesAndOneThatIsGoneLosesThem(t *testing.T) {
	run(t, telling, func(t *testing.T, ctx context.Context, b *bench) {
		b.watch("a")
		b.group.Apply(ctx, []lookout.Spec{b.spec("1", newStation(t))})
		if n := b.station.open(); n != 1 || b.station.closed {
			t.Errorf("the same broker again: %d lines are open", n)
		}
		next := newStation(t)
		b.group.Apply(ctx, []lookout.Spec{b.spec("2", next)})
		if b.station.open() != 0 || !b.station.closed || b.ledger.gone != 1 {
			t.Errorf("the changed broker: %d old lines are open, forgotten %d times", b.station.open(), b.ledger.gone)
		}
		synctest.Wait()
		if next.open() != 1 || !b.group.Covers(ref) {
			t.Errorf("the changed broker: %d new lines are open, want its queues to be read", next.open())
		}
		b.group.Apply(ctx, nil)
		if next.open() != 0 || b.group.Covers(ref) {
			t.Errorf("the removed broker: %d lines are open", next.open())
		}
		last := newStation(t)
		b.group.Apply(ctx, []lookout.Spec{b.spec("2", last)})
		synctest.Wait()
		if n := last.opened(); n != 0 {
			t.Errorf("the broker that came back: %d lines, want none before it is said what to watch", n)
		}
	})
}

func TestWhatIsWatchedBeforeItsBrokerIsKnownIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := &bench{station: newStation(t), ledger: &ledger{}}
		b.group = lookout.NewGroup(b.ledger, b.ledger, slog.New(slog.DiscardHandler))
		b.watch("a")
		b.group.Apply(ctx, []lookout.Spec{b.spec("1", b.station)})
		synctest.Wait()
		if !b.group.Covers(ref) {
			t.Error("the queue is not watched")
		}
		cancel()
		b.group.Wait()
	})
}

func TestABrokerWithoutASourceIsLoggedAndEndsWithTheOthers(t *testing.T) {
	run(t, telling, func(t *testing.T, ctx context.Context, b *bench) {
		bad := b.spec("2", nil)
		bad.Open = func() (lookout.Source, error) { return nil, errors.New("the CA file is unreadable") }
		b.group.Apply(ctx, []lookout.Spec{bad})
		b.watch("a")
		pass(time.Hour)
		if n := strings.Count(b.log.String(), "the CA file is unreadable"); n != 1 || b.group.Covers(ref) {
			t.Errorf("logged %d times, want once:\n%s", n, b.log)
		}
	})
}

// However messages, failures and changes of the set follow each other, in the end the
// truth is known of every queue that is watched.
func TestInTheEndTheTruthIsKnown(t *testing.T) {
	for name, kind := range map[string]func(*station){"telling": telling, "polled": polled} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *station) { kind(s); s.slowness = 3 * time.Millisecond }, func(t *testing.T, _ context.Context, b *bench) {
				names := manyNames(20)
				var disturbers sync.WaitGroup
				for seed := range uint64(4) {
					disturbers.Go(func() { b.disturb(rand.New(rand.NewPCG(seed, 7)), names) })
				}
				disturbers.Wait()
				b.station.set(func() { clear(b.station.broken) })
				b.watch(names...)
				pass(5 * time.Second)
				b.station.mu.Lock()
				defer b.station.mu.Unlock()
				last := b.ledger.last()
				for _, name := range names {
					if last[name] != b.station.depths[name] {
						t.Errorf("%s: %d known, %d waiting", name, last[name], b.station.depths[name])
					}
				}
				if !b.group.Covers(ref) {
					t.Error("not covered")
				}
			})
		})
	}
}

// disturb does what can happen, in any order.
func (b *bench) disturb(r *rand.Rand, names []string) {
	for range 500 {
		name := names[r.IntN(len(names))]
		switch r.IntN(20) {
		case 0:
			b.station.cut()
		case 1:
			b.station.tellAll()
		case 2:
			b.station.set(func() { b.station.broken[name] = !b.station.broken[name] })
		case 3, 4:
			b.group.Watch(ref, names[:r.IntN(len(names))])
		default:
			b.station.write(name, 1)
		}
		time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond)
	}
}
