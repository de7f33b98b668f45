package workers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/begun"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/pace"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Why nothing is known of the workers of a broker.
var (
	// ErrNotListening says that heartbeats are not heard at present.
	ErrNotListening = errors.New("the heartbeats of workers are not heard")
	// ErrNoControl says that workers are not asked by remote control.
	ErrNoControl = errors.New("workers are not asked by remote control")
)

// Store is what is known of the workers of each broker. Its methods are safe for
// concurrent use and do no I/O. What they return is the caller's, but for the slices
// within a Worker, which must not be changed.
type Store struct {
	mu    sync.RWMutex
	books map[queue.BrokerRef]*shelf
}

// shelf is a book and how it is filled.
type shelf struct {
	*book
	deaf, mute error         // why not listening, or not asking; nil if so
	desks      *asking.Desks // nil where workers are never asked
	ledger     *begun.Ledger
	enteredAt  time.Time // when the ledger had its latest sample
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{books: map[queue.BrokerRef]*shelf{}} }

// OnHost returns the workers of a namespace's brokers that run on a host.
func (s *Store) OnHost(namespace, host string) []Worker {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []Worker
	for ref, b := range s.books {
		if ref.Namespace == namespace {
			found = append(found, b.views(b.hosts[host])...)
		}
	}
	return found
}

// Of returns the workers of one broker, in no order.
func (s *Store) Of(ref queue.BrokerRef) []Worker {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if b := s.books[ref]; b != nil {
		return b.views(slices.Collect(maps.Values(b.workers)))
	}
	return nil
}

// Executing returns the tasks that the workers of a broker were last heard to
// execute, those of workers that have gone silent or shut down included, for as
// long as these are remembered. Of workers that were not asked there are those of
// which the configuration says all that is needed, with ids made up.
func (s *Store) Executing(ref queue.BrokerRef) []monitor.ExecutingTask {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.books[ref]
	if b == nil {
		return nil
	}
	var tasks []monitor.ExecutingTask
	for _, e := range b.workers {
		tasks = append(append(tasks, e.Tasks...), e.untold()...)
	}
	return tasks
}

// AddTimes fills in what the workers of a broker tell of the times of its queues:
// how long a task that is sent now will wait, and how much work there is. The sample
// is changed; it must not have been handed to anybody else yet.
func (s *Store) AddTimes(ref queue.BrokerRef, sample *queue.Sample, now time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.books[ref]
	if b == nil {
		off := fmt.Errorf("%w: they are switched off (workers.heartbeats)", ErrNotListening)
		pace.NewServices().AddTimes(sample, off, now)
		return
	}
	b.services.AddTimes(sample, b.unserved(), now)
}

// unserved says why no worker is known to serve a queue.
func (s *shelf) unserved() error {
	switch {
	case s.deaf != nil:
		return fmt.Errorf("%w: %w", ErrNotListening, s.deaf)
	case s.mute != nil:
		return fmt.Errorf("%w: %w: %w", pace.ErrNobodyServes, ErrNoControl, s.mute)
	}
	return pace.ErrNobodyServes
}

// Listening returns nil while the heartbeats of all brokers of a namespace are
// heard, else an error that says which are not, and why. It wraps ErrNotListening.
func (s *Store) Listening(namespace string) error {
	return s.faults(namespace, ErrNotListening, func(b *shelf) error { return b.deaf })
}

// Control returns nil while remote control may be used with all brokers of a
// namespace, else an error like that of Listening. It wraps ErrNoControl.
func (s *Store) Control(namespace string) error {
	return s.faults(namespace, ErrNoControl, func(b *shelf) error { return b.mute })
}

func (s *Store) faults(namespace string, kind error, of func(*shelf) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var errs []error
	for ref, b := range s.books {
		if ref.Namespace == namespace && of(b) != nil {
			errs = append(errs, fmt.Errorf("broker %s: %w: %w", ref, kind, of(b)))
		}
	}
	return errors.Join(errs...)
}

// Brokers returns which brokers' workers are to be heard, and why those of each are
// not, nil if they are.
func (s *Store) Brokers() map[queue.BrokerRef]error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	brokers := make(map[queue.BrokerRef]error, len(s.books))
	for ref, b := range s.books {
		brokers[ref] = b.deaf
	}
	return brokers
}

// Fault says why the workers of a broker are not heard, or that the broker does not permit
// to ask them; nil if neither is so.
func (s *Store) Fault(ref queue.BrokerRef) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch b := s.books[ref]; {
	case b == nil:
		return nil
	case b.deaf != nil:
		return fmt.Errorf("%w: %w", ErrNotListening, b.deaf)
	case queue.IsMissingRight(b.mute):
		return fmt.Errorf("%w: %w", ErrNoControl, b.mute)
	}
	return nil
}

// edit lets do change what is known of a broker's workers, if it is still declared.
func (s *Store) edit(ref queue.BrokerRef, do func(*shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[ref]; b != nil {
		do(b)
	}
}

// due returns the workers to ask a question.
func (s *Store) due(ref queue.BrokerRef, m monitor.Method, now time.Time) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if b := s.books[ref]; b != nil {
		return b.due(m, now)
	}
	return nil
}

func (s *Store) declare(spec Spec, desks *asking.Desks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books[spec.Ref] = &shelf{
		book: newBook(spec.Ref, spec.Declared),
		deaf: errors.New("listening has not begun yet"),
		mute: errors.New("none has been asked yet"), desks: desks, ledger: begun.NewLedger(),
	}
}

func (s *Store) forget(ref queue.BrokerRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.books, ref)
}
