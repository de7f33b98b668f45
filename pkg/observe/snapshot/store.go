package snapshot

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Declaration is what is known of a broker before it was ever asked.
type Declaration struct {
	Ref queue.BrokerRef
	// MaxAge is how old a count may be and still be served.
	MaxAge time.Duration
	// Queues maps each declared queue to its alias, or to "" where it has
	// none. Nil if the broker's own list of queues is to be used.
	Queues map[string]string
}

// Store holds one Broker view per declared broker. All methods are safe for
// concurrent use; reading takes no lock.
type Store struct {
	mu      sync.Mutex // serializes writers
	brokers atomic.Pointer[index]
}

// index is the immutable content of the store.
type index struct {
	byRef       map[queue.BrokerRef]*Broker
	byNamespace map[string][]*Broker // sorted by name
	all         []*Broker            // sorted by namespace and name
}

// New returns an empty store.
func New() *Store {
	s := &Store{}
	s.brokers.Store(&index{})
	return s
}

// Declare makes a broker known, as not sampled yet. What an earlier
// declaration of the same broker had gathered is dropped, since it may have
// come from another server.
func (s *Store) Declare(d Declaration) {
	s.update(d.Ref, func(*Broker) *Broker { return newBroker(d) })
}

// Forget removes a broker and all that was known of it.
func (s *Store) Forget(ref queue.BrokerRef) {
	s.update(ref, func(*Broker) *Broker { return nil })
}

// Put records a sample. A sample of a broker that is not declared is dropped:
// its loop was slower to stop than its declaration was to go.
func (s *Store) Put(ref queue.BrokerRef, sample *queue.Sample) {
	s.update(ref, func(b *Broker) *Broker {
		if b == nil {
			return nil
		}
		return b.withSample(sample)
	})
}

// Fail records that an attempt to sample ended with err at the given time. What
// was known before stays and goes on ageing.
func (s *Store) Fail(ref queue.BrokerRef, err error, at time.Time) {
	s.update(ref, func(b *Broker) *Broker {
		if b == nil {
			return nil
		}
		return b.withFailure(err, at)
	})
}

// Broker returns the view of one broker, and whether it is declared.
func (s *Store) Broker(ref queue.BrokerRef) (*Broker, bool) {
	b, ok := s.brokers.Load().byRef[ref]
	return b, ok
}

// Namespace returns the brokers of one namespace, sorted by name. The slice and
// what it holds must not be changed.
func (s *Store) Namespace(namespace string) []*Broker {
	return s.brokers.Load().byNamespace[namespace]
}

// All returns every broker, sorted by namespace and name. The slice and what it
// holds must not be changed.
func (s *Store) All() []*Broker { return s.brokers.Load().all }

// Ready returns nil when every declared broker has been sampled or has failed
// with a reason, else an error that names those still waited for.
func (s *Store) Ready() error {
	var errs []error
	for _, b := range s.All() {
		if !b.Sampled() && b.Failure == nil {
			errs = append(errs, b.notSampled())
		}
	}
	return errors.Join(errs...)
}

// update replaces one broker's view by what change makes of it; nil removes it, and
// the same view changes nothing.
// The cost follows the number of brokers, not of queues.
func (s *Store) update(ref queue.BrokerRef, change func(*Broker) *Broker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.brokers.Load()
	before := old.byRef[ref]
	next := change(before)
	if next == before {
		return
	}
	byRef := maps.Clone(old.byRef)
	if byRef == nil {
		byRef = map[queue.BrokerRef]*Broker{}
	}
	if next != nil {
		byRef[ref] = next
	} else {
		delete(byRef, ref)
	}
	s.brokers.Store(newIndex(byRef))
}

func newIndex(byRef map[queue.BrokerRef]*Broker) *index {
	all := slices.SortedFunc(maps.Values(byRef), func(a, b *Broker) int {
		return cmp.Or(cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name))
	})
	byNamespace := map[string][]*Broker{}
	for _, b := range all {
		byNamespace[b.Ref.Namespace] = append(byNamespace[b.Ref.Namespace], b)
	}
	return &index{byRef: byRef, byNamespace: byNamespace, all: all}
}
