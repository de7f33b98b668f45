package sampler_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// lasting answers after a time.
func lasting(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	}
}

// seldom is a broker that is sampled each minute.
func seldom(broker sampler.Broker) sampler.Spec {
	s := spec("1", broker)
	s.Interval, s.MaxAge = time.Minute, 5*time.Minute
	return s
}

// since is how long after start each turn began, in seconds and without the first n.
func (s *scripted) since(start time.Time, n int) []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var seconds []float64
	for _, at := range s.turns[n:] {
		seconds = append(seconds, at.Sub(start).Round(100*time.Millisecond).Seconds())
	}
	return seconds
}

func TestAFreshSampleBeginsAfterTheCallAndIsInTheStore(t *testing.T) {
	for _, c := range []struct {
		rule  string
		at    time.Duration // when it is asked for
		turns int           // after which it has it, the first included
		takes time.Duration
	}{
		{"in a pause it begins at once", 10 * time.Second, 2, time.Second},
		{"during a turn it is the next one, at once", 500 * time.Millisecond, 2, 1500 * time.Millisecond},
	} {
		t.Run(c.rule, func(t *testing.T) {
			broker := &scripted{answer: lasting(time.Second)}
			run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
				time.Sleep(c.at)
				called := time.Now()
				if err := b.group.Fresh(ctx, ref); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(called); took != c.takes {
					t.Errorf("it took %s, want %s", took, c.takes)
				}
				if n := broker.count(); n != c.turns {
					t.Errorf("%d turns, want %d", n, c.turns)
				}
				if at := b.store.All()[0].SampledAt(); at.Before(called) {
					t.Errorf("the sample in the store is of %s, before the call", called.Sub(at))
				}
			})
		})
	}
}

func TestAfterAFreshSampleComesTheUsualPause(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
		time.Sleep(30 * time.Second)
		if err := b.group.Fresh(ctx, ref); err != nil {
			t.Fatal(err)
		}
		time.Sleep(53 * time.Second)
		if n := broker.count(); n != 2 {
			t.Errorf("%d turns 53 s later, want 2", n)
		}
		time.Sleep(8 * time.Second)
		if n := broker.count(); n != 3 {
			t.Errorf("%d turns 61 s later, want 3", n)
		}
	})
}

func TestCallsAtTheSameTimeShareATurn(t *testing.T) {
	broker := &scripted{answer: lasting(time.Second)}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
		time.Sleep(500 * time.Millisecond) // within the first turn
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if err := b.group.Fresh(ctx, ref); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		time.Sleep(10 * time.Second)
		if n := broker.count(); n != 2 {
			t.Errorf("%d turns, want the first and one more", n)
		}
	})
}

func TestAStormOfCallsCostsOneTurnAtATime(t *testing.T) {
	var at, most atomic.Int32
	broker := &scripted{answer: func(ctx context.Context) error {
		if n := at.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer at.Add(-1)
		return errors.Join(lasting(100*time.Millisecond)(ctx), errors.New("connection refused"))
	}}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
		storm, end := context.WithTimeout(ctx, 10*time.Second)
		defer end()
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				for storm.Err() == nil {
					_ = b.group.Fresh(storm, ref)
					b.group.Hurry(ref)
				}
			})
		}
		callers.Wait()
		if n := broker.count(); most.Load() != 1 || n < 100 || n > 102 {
			t.Errorf("%d turns of 100 ms in 10 s, up to %d at once; want 101, one at a time", n, most.Load())
		}
	})
}

func TestAFreshSampleThatFailsSaysWhy(t *testing.T) {
	other := queue.BrokerRef{Namespace: "airflow", Name: "other"}
	refused := errors.New("connection refused")
	for _, c := range []struct {
		rule string
		ref  queue.BrokerRef
		// answer is what the broker does from the second turn on.
		answer func(context.Context) error
		// meanwhile happens one second after the call.
		meanwhile func(ctx context.Context, b *bench)
		after     time.Duration
		want      string
	}{
		{"the turn failed", ref, func(context.Context) error { return refused }, nil, 0, "connection refused"},
		{"the turn timed out", ref, lasting(time.Hour), nil, 2 * time.Second, "context deadline exceeded"},
		{"nobody knows the broker", other, nil, nil, 0, "broker airflow/other cannot be sampled afresh: it is not among the brokers that are sampled"},
		{"the broker is gone meanwhile", ref, lasting(time.Hour), func(ctx context.Context, b *bench) { b.group.Apply(ctx, nil) }, time.Second, "broker airflow/prod cannot be sampled afresh: it is not among the brokers that are sampled"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			broker := &scripted{}
			run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
				broker.set(c.answer)
				if c.meanwhile != nil {
					timer := time.AfterFunc(time.Second, func() { c.meanwhile(ctx, b) })
					defer timer.Stop()
				}
				called := time.Now()
				err := b.group.Fresh(ctx, c.ref)
				if err == nil || err.Error() != c.want {
					t.Errorf("error %v, want %q", err, c.want)
				}
				if took := time.Since(called); took != c.after {
					t.Errorf("it took %s, want %s", took, c.after)
				}
			})
		})
	}
}

func TestAFreshSampleIsWaitedForAsLongAsTheCallerWants(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, ctx context.Context, b *bench) {
		broker.set(lasting(time.Hour))
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		called := time.Now()
		err := b.group.Fresh(short, ref)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "airflow/prod") || time.Since(called) != time.Second {
			t.Errorf("after %s: %v, want after 1 s an error that names the broker and wraps that of the context", time.Since(called), err)
		}
	})
}

func TestABrokerThatCannotBeOpenedHasNoFreshSample(t *testing.T) {
	bad := seldom(nil)
	bad.Open = func() (sampler.Broker, error) { return nil, errors.New("the CA file is unreadable") }
	told := 0
	bad.Sampled = func() { told++ }
	run(t, []sampler.Spec{bad}, func(t *testing.T, ctx context.Context, b *bench) {
		if told != 1 || b.store.All()[0].Failure == nil {
			t.Errorf("its failure was told %d times, want once, and it is in the store", told)
		}
		if err := b.group.Fresh(ctx, ref); err == nil || err.Error() != "the CA file is unreadable" {
			t.Errorf("error %v, want why it cannot be opened", err)
		}
	})
}

func TestHurryCutsOnePauseShort(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, _ context.Context, b *bench) {
		start := time.Now()
		b.group.Hurry(queue.BrokerRef{Name: "unknown"})
		time.Sleep(10 * time.Second)
		b.group.Hurry(ref)
		b.group.Hurry(ref)
		time.Sleep(10 * time.Second)
		if diff := cmp.Diff([]float64{10}, broker.since(start, 1)); diff != "" {
			t.Errorf("turns (-want +got)\n%s", diff)
		}
	})
}

func TestHurryCutsThePauseOfABrokerThatFails(t *testing.T) {
	broker := &scripted{answer: func(context.Context) error { return errors.New("connection refused") }}
	run(t, []sampler.Spec{seldom(broker)}, func(t *testing.T, _ context.Context, b *bench) {
		time.Sleep(10 * time.Second)
		broker.set(nil)
		b.group.Hurry(ref)
		synctest.Wait()
		if failure := b.store.All()[0].Failure; failure != nil {
			t.Errorf("failure = %v, want none", failure)
		}
	})
}

func TestWhereSeldomSamplesDoThePauseIsLonger(t *testing.T) {
	for _, c := range []struct {
		rule                   string
		interval, rest, maxAge time.Duration
		awake                  bool
		from, to               int // turns in a minute, the first included
	}{
		{"five seconds", time.Second, 0, 30 * time.Second, false, 13, 15},
		{"half of the maximum age, if that is less", time.Second, 0, 6 * time.Second, false, 21, 24},
		{"as it is wanted", time.Second, 10 * time.Second, 6 * time.Second, false, 7, 7},
		{"not shorter than the interval", 20 * time.Second, 0, 30 * time.Second, false, 4, 4},
		{"not shorter than the interval, whatever is wanted", 20 * time.Second, time.Second, 30 * time.Second, false, 4, 4},
		{"as usual while it is not asked for", time.Second, 10 * time.Second, 30 * time.Second, true, 61, 67},
	} {
		t.Run(c.rule, func(t *testing.T) {
			broker := &scripted{}
			s := spec("1", broker)
			s.Interval, s.RestInterval, s.MaxAge = c.interval, c.rest, c.maxAge
			s.Rest = func() bool { return !c.awake }
			run(t, []sampler.Spec{s}, func(t *testing.T, _ context.Context, b *bench) {
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := broker.count(); n < c.from || n > c.to {
					t.Errorf("%d turns in a minute, want %d to %d", n, c.from, c.to)
				}
				if err := b.group.Alive(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestABrokerThatFailsDoesNotRest(t *testing.T) {
	broker := &scripted{answer: func(context.Context) error { return errors.New("connection refused") }}
	s := spec("1", broker)
	s.Rest = func() bool { return true }
	run(t, []sampler.Spec{s}, func(t *testing.T, _ context.Context, _ *bench) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := broker.count(); n < 30 {
			t.Errorf("%d turns in a minute, want one each 2 s at least", n)
		}
	})
}

func TestALoopThatRestsHangsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := &scripted{answer: func(context.Context) error { <-release; return nil }} // heeds no context: a fault of ours
		s := spec("1", stuck)
		s.MaxAge, s.Rest = time.Minute, func() bool { return true }
		ctx, cancel := context.WithCancel(t.Context())
		b := newBench()
		b.group.Apply(ctx, []sampler.Spec{s})
		time.Sleep(5*time.Second + 2*time.Second + 30*time.Second)
		if err := b.group.Alive(); err != nil {
			t.Errorf("within the rest pace, the time-out and the allowance: %v", err)
		}
		time.Sleep(time.Second)
		if err := b.group.Alive(); err == nil {
			t.Error("a second later it still counts as alive")
		}
		cancel()
		close(release)
		b.group.Wait()
	})
}

func TestWhoIsToldOfATurnFindsItInTheStore(t *testing.T) {
	broker := &scripted{}
	var seen []string
	var store *snapshot.Store
	s := spec("1", broker)
	s.Sampled = func() {
		view, _ := store.Broker(ref)
		switch {
		case view.Failure != nil:
			seen = append(seen, view.Failure.Error())
		case view.SampledAt().Equal(time.Now()):
			seen = append(seen, "good")
		default:
			seen = append(seen, "old")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newBench()
		store = b.store
		b.group.Apply(ctx, []sampler.Spec{s})
		synctest.Wait()
		broker.set(func(context.Context) error { return errors.New("connection refused") })
		time.Sleep(time.Second)
		synctest.Wait()
		broker.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cancel()
		b.group.Wait()
		if len(seen) > 3 {
			seen = seen[:3]
		}
		if diff := cmp.Diff([]string{"good", "connection refused", "good"}, seen); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}
