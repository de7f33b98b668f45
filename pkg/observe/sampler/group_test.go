package sampler_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

var ref = queue.BrokerRef{Namespace: "airflow", Name: "prod"}

// scripted is a broker whose answer the test sets. Here it is time that is
// tested: a real broker cannot live in a bubble of synthetic time.
type scripted struct {
	mu     sync.Mutex
	turns  []time.Time
	answer func(ctx context.Context) error
	lacks  error
	closed bool
}

func (s *scripted) Sample(ctx context.Context) (*queue.Sample, error) {
	s.mu.Lock()
	now := time.Now()
	s.turns = append(s.turns, now)
	answer, lacks := s.answer, s.lacks
	s.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return nil, err
		}
	}
	return &queue.Sample{At: now, Degraded: lacks, Queues: map[string]queue.Depth{"default": {Backlog: queue.Known(1, now)}}}, nil
}

func (s *scripted) Close() error { s.closed = true; return nil }

func (s *scripted) set(answer func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// lack makes the samples lack a part.
func (s *scripted) lack(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacks = err
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.turns)
}

// ledger is a Recorder that counts.
type ledger struct {
	mu              sync.Mutex
	good, bad, gone int
}

func (l *ledger) Sampled(_ queue.BrokerRef, _ time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.bad++
	} else {
		l.good++
	}
}

func (l *ledger) Forget(queue.BrokerRef) { l.gone++ }

type bench struct {
	store  *snapshot.Store
	ledger *ledger
	group  *sampler.Group
	log    *strings.Builder
}

func newBench() *bench {
	b := &bench{store: snapshot.New(), ledger: &ledger{}, log: &strings.Builder{}}
	b.group = sampler.NewGroup(b.store, b.ledger, slog.New(slog.NewTextHandler(b.log, nil)))
	return b
}

func spec(fingerprint string, broker sampler.Broker) sampler.Spec {
	return sampler.Spec{
		Declaration: snapshot.Declaration{Ref: ref, MaxAge: 10 * time.Second},
		Interval:    time.Second,
		Timeout:     2 * time.Second,
		Fingerprint: fingerprint,
		Open:        func() (sampler.Broker, error) { return broker, nil },
	}
}

// run applies the specs and runs body in a bubble of synthetic time.
func run(t *testing.T, specs []sampler.Spec, body func(t *testing.T, ctx context.Context, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newBench()
		b.group.Apply(ctx, specs)
		synctest.Wait()
		body(t, ctx, b)
		cancel()
		b.group.Wait()
	})
}

func TestABrokerIsSampledAtItsInterval(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{spec("1", broker)}, func(t *testing.T, _ context.Context, b *bench) {
		time.Sleep(time.Minute)
		synctest.Wait()
		// 60 pauses of at most a second and at least a jitter's 10 % less.
		if n := broker.count(); n < 61 || n > 67 {
			t.Errorf("%d turns in a minute, want 61 to 67", n)
		}
		if !b.store.All()[0].Sampled() {
			t.Error("the store has no sample")
		}
	})
	if !broker.closed {
		t.Error("the broker was not closed")
	}
}

func TestAFailureIsToldOnceAndItsEndToo(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{spec("1", broker)}, func(t *testing.T, _ context.Context, b *bench) {
		broker.set(func(context.Context) error { return errors.New("connection refused") })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if failure := b.store.All()[0].Failure; failure == nil || failure.Error() != "connection refused" {
			t.Errorf("failure = %v, want connection refused", failure)
		}
		if n := strings.Count(b.log.String(), "could not be sampled"); n != 1 {
			t.Errorf("the failure was logged %d times, want once:\n%s", n, b.log)
		}
		before := broker.count()
		broker.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if broker.count() == before {
			t.Error("two seconds after its return the broker has not been asked again")
		}
		if failure := b.store.All()[0].Failure; failure != nil {
			t.Errorf("after the return failure = %v, want none", failure)
		}
		if !strings.Contains(b.log.String(), "answering again") {
			t.Errorf("the return was not logged:\n%s", b.log)
		}
	})
}

func TestAPartThatIsMissingIsToldOnceAndItsEndToo(t *testing.T) {
	broker := &scripted{}
	run(t, []sampler.Spec{spec("1", broker)}, func(t *testing.T, _ context.Context, b *bench) {
		broker.lack(errors.New("no right"))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if err := b.store.All()[0].Degraded(); err == nil || b.store.All()[0].Failure != nil {
			t.Errorf("degraded = %v and failure = %v, want the first alone", err, b.store.All()[0].Failure)
		}
		if n := strings.Count(b.log.String(), "no right"); n != 1 {
			t.Errorf("the missing part was logged %d times, want once:\n%s", n, b.log)
		}
		broker.lack(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !strings.Contains(b.log.String(), "can be read again") {
			t.Errorf("the end was not logged:\n%s", b.log)
		}
	})
}

func TestABrokerThatHangsIsCutOffAndCostsNoOther(t *testing.T) {
	hanging, well := &scripted{}, &scripted{}
	hanging.set(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	other := spec("1", well)
	other.Ref.Name = "other"
	run(t, []sampler.Spec{spec("1", hanging), other}, func(t *testing.T, _ context.Context, b *bench) {
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := well.count(); n < 20 {
			t.Errorf("the other broker had %d turns in 20 s, want at least 20", n)
		}
		if n := hanging.count(); n < 5 {
			t.Errorf("the hanging broker was asked %d times in 20 s, want its time-out to end each turn", n)
		}
		if err := b.group.Alive(); err != nil {
			t.Errorf("a broker that hangs is not a loop that hangs: %v", err)
		}
	})
}

func TestALoopThatHangsIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := &scripted{}
		stuck.set(func(context.Context) error { <-release; return nil }) // heeds no context: a fault of ours
		ctx, cancel := context.WithCancel(t.Context())
		b := newBench()
		b.group.Apply(ctx, []sampler.Spec{spec("1", stuck)})
		time.Sleep(time.Minute)
		if err := b.group.Alive(); err == nil || !strings.Contains(err.Error(), "airflow/prod") {
			t.Errorf("Alive() = %v, want an error that names airflow/prod", err)
		}
		cancel()
		close(release)
		b.group.Wait()
	})
}

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	kept, replaced, next, removed := &scripted{}, &scripted{}, &scripted{}, &scripted{}
	named := func(name, fingerprint string, broker sampler.Broker) sampler.Spec {
		s := spec(fingerprint, broker)
		s.Ref.Name = name
		return s
	}
	before := []sampler.Spec{named("kept", "1", kept), named("replaced", "1", replaced), named("removed", "1", removed)}
	run(t, before, func(t *testing.T, ctx context.Context, b *bench) {
		b.group.Apply(ctx, []sampler.Spec{named("kept", "1", &scripted{}), named("replaced", "2", next)})
		if !replaced.closed || !removed.closed || kept.closed {
			t.Errorf("closed: replaced %v, removed %v, kept %v; want true, true, false", replaced.closed, removed.closed, kept.closed)
		}
		if all := b.store.All(); len(all) != 2 || all[0].Ref.Name != "kept" || !all[0].Sampled() || all[1].Sampled() {
			t.Errorf("after Apply the store has %d brokers; want kept with its sample, replaced without", len(all))
		}
		if b.ledger.gone != 2 {
			t.Errorf("%d brokers' records forgotten, want 2", b.ledger.gone)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if next.count() == 0 {
			t.Error("the replacement is not sampled")
		}
	})
}

func TestABrokerThatCannotBeOpenedFailsWithTheReason(t *testing.T) {
	bad := spec("1", nil)
	bad.Open = func() (sampler.Broker, error) { return nil, errors.New("the CA file is unreadable") }
	run(t, []sampler.Spec{bad}, func(t *testing.T, _ context.Context, b *bench) {
		time.Sleep(time.Hour)
		synctest.Wait()
		if failure := b.store.All()[0].Failure; failure == nil || failure.Error() != "the CA file is unreadable" {
			t.Errorf("failure = %v", failure)
		}
		if err := b.store.Ready(); err != nil {
			t.Errorf("a failure with a reason keeps the server unready: %v", err)
		}
		if err := b.group.Alive(); err != nil {
			t.Errorf("Alive() = %v", err)
		}
	})
}
