package component

import "sync"

// Supervisor notices the first component that ends unasked. Its methods are safe
// for concurrent use.
type Supervisor struct {
	done     chan struct{}
	watchers sync.WaitGroup

	mu       sync.Mutex
	stopping bool
	err      error
}

// NewSupervisor returns one that watches nothing yet.
func NewSupervisor() *Supervisor { return &Supervisor{done: make(chan struct{})} }

// Done is closed when a component has ended unasked, or by ExpectEnd.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Watch watches a component until it ends, which is no failure if it was stopped. Call
// Wait before the end.
func (s *Supervisor) Watch(c *Component) {
	s.watchers.Go(func() {
		<-c.process.Done()
		if !c.stopping.Load() {
			s.ended(c.died)
		}
	})
}

func (s *Supervisor) ended(reason func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.err != nil {
		return
	}
	s.err = reason()
	close(s.done)
}

// ExpectEnd makes every end from now on an orderly one.
func (s *Supervisor) ExpectEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping && s.err == nil {
		close(s.done)
	}
	s.stopping = true
}

// Err says which component ended unasked, with the end of its log, or is nil.
func (s *Supervisor) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Wait blocks until every watched component has ended.
func (s *Supervisor) Wait() { s.watchers.Wait() }
