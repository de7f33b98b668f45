package lookout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

func TestABrokerThatDoesNotTellIsReadAtItsInterval(t *testing.T) {
	for _, c := range []struct {
		rule     string
		queues   int
		slowness time.Duration
		from, to int // reads in 10 s
	}{
		{"few queues, each 50 ms", 2, 0, 190, 211},
		{"the interval goes from start to start", 2, 30 * time.Millisecond, 190, 211},
		{"many queues, as often as the budget allows", 10_000, 0, 19, 22},
		{"never two at once", 2, 200 * time.Millisecond, 49, 51},
	} {
		t.Run(c.rule, func(t *testing.T) {
			run(t, func(s *station) { polled(s); s.slowness = c.slowness }, func(t *testing.T, _ context.Context, b *bench) {
				b.watch(append(manyNames(c.queues), "queue-00001")...) // one of them twice
				pass(10 * time.Second)
				reads := b.station.reads()
				if n := len(reads); n < c.from || n > c.to {
					t.Errorf("%d reads in 10 s, want %d to %d", n, c.from, c.to)
				}
				for _, r := range reads {
					if len(r.queues) != c.queues {
						t.Fatalf("a read of %d queues, want all %d", len(r.queues), c.queues)
					}
				}
			})
		})
	}
}

func manyNames(n int) []string {
	names := make([]string, 0, n)
	for i := range n {
		names = append(names, fmt.Sprintf("queue-%05d", i))
	}
	return names
}

func TestOfABrokerThatDoesNotTellOnlyNewsAreTold(t *testing.T) {
	run(t, polled, func(t *testing.T, _ context.Context, b *bench) {
		b.watch(manyNames(1000)...)
		pass(time.Second)
		if b.ledger.tellings != 1 || len(b.ledger.told) != 1000 {
			t.Fatalf("the sink was told %d times of %d queues, want once of 1000", b.ledger.tellings, len(b.ledger.told))
		}
		before := len(b.station.reads())
		b.station.write("queue-00007", 2)
		pass(170 * time.Millisecond)
		b.station.write("queue-00007", -2)
		reads := len(b.station.reads()) - before
		pass(time.Second)
		b.station.set(func() { b.station.broken["queue-00007"] = true })
		pass(time.Second)
		b.station.set(func() { b.station.broken["queue-00007"] = false })
		pass(time.Second)
		counts := b.ledger.counts("queue-00007")
		if diff := cmp.Diff([]int64{0, 2, 0, -1, 0}, slices.Compact(slices.Clone(counts))); diff != "" {
			t.Errorf("changes (-want +got)\n%s", diff)
		}
		if len(counts) != 4+reads {
			t.Errorf("told %v, want it at each of %d reads while messages waited, once else", counts, reads)
		}
		if n := len(b.ledger.counts("queue-00008")); n != 1 {
			t.Errorf("of another queue it was told %d times, want once", n)
		}
	})
}

func TestARightThatIsGrantedIsUsedSoon(t *testing.T) {
	lacking := &queue.MissingRightError{Err: errors.New("it needs +client|tracking")}
	run(t, func(s *station) { s.mute = lacking }, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(10*time.Minute + 15*time.Second)
		if n := b.station.opened(); n != 21 || b.station.open() != 1 {
			t.Errorf("%d lines were opened in ten minutes and %d are open, want 21 and 1", n, b.station.open())
		}
		if got := b.group.Untold(ref); !errors.Is(got, lacking) {
			t.Errorf("it is untold because %v", got)
		}
		b.station.set(func() { b.station.mute = nil })
		b.station.write("a", 1)
		pass(30 * time.Second)
		if got := b.ledger.last()["a"]; got != 1 {
			t.Errorf("%d messages are known, want 1", got)
		}
		pass(time.Hour)
		if n := b.station.opened(); n != 22 || b.group.Untold(ref) != nil {
			t.Errorf("%d lines were opened, want one more; untold: %v", n, b.group.Untold(ref))
		}
		b.logged(t, 0, 0)
	})
}

func TestABrokerThatNeverTellsKeepsItsLine(t *testing.T) {
	run(t, polled, func(t *testing.T, _ context.Context, b *bench) {
		b.watch("a")
		pass(10 * time.Minute)
		if n := b.station.opened(); n != 1 {
			t.Errorf("%d lines were opened, want 1", n)
		}
	})
}
