package zeroscaler

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Targets gives what HPAs scale, and tells of changes; see target.Watcher.
type Targets interface {
	OptedIn() []target.Target
	Targets(namespace string) []target.Target
	Changed() <-chan struct{}
}

// Scaler runs a machine for each target whose HPA asks for it. Make it with New. Its
// methods are safe for concurrent use.
type Scaler struct {
	parts    Parts
	targets  Targets
	lookouts Lookouts
	sampling Sampling

	stepping sync.WaitGroup // one for each runner that steps

	mu      sync.Mutex
	runners map[name]*runner
	watch   watchList
}

// name is that of an HPA.
type name struct{ namespace, hpa string }

// New makes a scaler without targets.
func New(parts Parts, targets Targets, lookouts Lookouts, sampling Sampling) *Scaler {
	return &Scaler{
		parts: parts, targets: targets, lookouts: lookouts, sampling: sampling,
		runners: map[name]*runner{}, watch: watchList{},
	}
}

// Run keeps the targets until ctx is done, waits for the writes that are under way, and
// returns nil. It blocks.
func (s *Scaler) Run(ctx context.Context) error {
	defer s.stepping.Wait()
	defer s.endAll()
	for {
		changed := s.targets.Changed()
		s.adjust(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// adjust begins the runners of targets that are new, ends those of targets that are
// gone, and tells the others of changes.
func (s *Scaler) adjust(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[name]bool{}
	for _, t := range s.targets.OptedIn() {
		n := name{t.Namespace, t.HPA}
		wanted[n] = true
		if r := s.runners[n]; r != nil && r.scales(t) {
			r.change(t)
			continue
		} else if r != nil {
			s.end(n, r)
		}
		s.runners[n] = newRunner(ctx, s, t)
	}
	for n, r := range s.runners {
		if !wanted[n] {
			s.end(n, r)
		}
	}
}

func (s *Scaler) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		r.stop()
	}
}

// end stops a runner. s.mu is held.
func (s *Scaler) end(n name, r *runner) {
	r.stop()
	delete(s.runners, n)
	for _, ref := range s.watch.drop(r) {
		s.lookouts.Watch(ref, s.watch.names(ref))
	}
}

// Sampled tells that a broker has been sampled, or could not be.
func (s *Scaler) Sampled(ref queue.BrokerRef) {
	s.pokeAll(func(r *runner) bool { return r.namespace == ref.Namespace })
}

// Resized tells that a target of a namespace has got another size, or other pods.
func (s *Scaler) Resized(namespace, target string) {
	s.pokeAll(func(r *runner) bool { return r.namespace == namespace && r.target.Load().Name == target })
}

// Led tells that this replica of celery-hpa has begun to lead: it waits no longer for
// another one to go first.
func (s *Scaler) Led() { s.pokeAll(func(*runner) bool { return true }) }

func (s *Scaler) pokeAll(which func(*runner) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		if which(r) {
			r.poke()
		}
	}
}

// Waiting tells how many messages wait in queues that are watched closely.
func (s *Scaler) Waiting(ref queue.BrokerRef, counts map[string]queue.Count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for queueName, c := range counts {
		if c.Err != nil || c.N == 0 {
			continue
		}
		for r := range s.watch[ref][queueName] {
			r.poke()
		}
	}
}

// Rests reports whether nobody needs to know the counts of a broker from one second to
// the next: every HPA of its namespace that scales on our metrics has its target
// asleep.
func (s *Scaler) Rests(ref queue.BrokerRef) bool {
	targets := s.targets.Targets(ref.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	isAwake := func(t target.Target) bool {
		r := s.runners[name{t.Namespace, t.HPA}]
		return r == nil || !r.asleep.Load()
	}
	return len(targets) > 0 && !slices.ContainsFunc(targets, isAwake)
}

// watches makes these the queues that are watched closely for a runner.
func (s *Scaler) watches(r *runner, queues map[queue.BrokerRef][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runners[r.name()] != r {
		return // ended
	}
	changed := s.watch.drop(r)
	changed = append(changed, s.watch.add(r, queues)...)
	r.watched = queues
	slices.SortFunc(changed, compareRefs)
	for _, ref := range slices.Compact(changed) {
		s.lookouts.Watch(ref, s.watch.names(ref))
	}
}

// watchList is which queues are watched closely, and for whom.
type watchList map[queue.BrokerRef]map[string]map[*runner]bool

// add returns the brokers of the queues.
func (w watchList) add(r *runner, queues map[queue.BrokerRef][]string) []queue.BrokerRef {
	for ref, names := range queues {
		if w[ref] == nil {
			w[ref] = map[string]map[*runner]bool{}
		}
		for _, n := range names {
			if w[ref][n] == nil {
				w[ref][n] = map[*runner]bool{}
			}
			w[ref][n][r] = true
		}
	}
	return slices.Collect(maps.Keys(queues))
}

// drop returns the brokers whose queues were watched for a runner.
func (w watchList) drop(r *runner) []queue.BrokerRef {
	var changed []queue.BrokerRef
	for ref, names := range r.watched {
		for _, n := range names {
			delete(w[ref][n], r)
			if len(w[ref][n]) == 0 {
				delete(w[ref], n)
			}
		}
		changed = append(changed, ref)
	}
	return changed
}

// names lists the queues of a broker that are watched, sorted.
func (w watchList) names(ref queue.BrokerRef) []string { return slices.Sorted(maps.Keys(w[ref])) }
