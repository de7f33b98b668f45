package lookout_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// station is a broker that tells of writes as Redis does, once after each read, or
// does not tell. It stands in for a real one, which cannot live in a bubble of
// synthetic time, nor fail at a wanted moment.
type station struct {
	t testing.TB

	mu       sync.Mutex
	depths   map[string]int64
	broken   map[string]bool // queues that cannot be read
	mute     error           // why it does not tell; nil if it does
	refusal  error           // why no line can be opened
	slowness time.Duration   // of a read
	attempts []time.Time     // at opening a line
	lines    []*wire         // all that were ever opened
	closed   bool
}

func newStation(t testing.TB) *station {
	return &station{t: t, depths: map[string]int64{}, broken: map[string]bool{}}
}

// Open implements lookout.Source.
func (s *station) Open(context.Context) (lookout.Line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, time.Now())
	if s.refusal != nil {
		return nil, s.refusal
	}
	w := &wire{station: s, tracked: map[string]bool{}, arrived: make(chan struct{}, 1), ended: make(chan struct{})}
	s.lines = append(s.lines, w)
	return w, nil
}

// Close implements lookout.Source.
func (s *station) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if slices.ContainsFunc(s.lines, func(w *wire) bool { return !w.closed }) {
		s.t.Error("the source was closed before its lines")
	}
	return nil
}

// set changes something about the station.
func (s *station) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// write makes a queue hold so many messages more.
func (s *station) write(name string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.depths[name] += n
	for _, w := range s.lines {
		if w.tracked[name] {
			delete(w.tracked, name)
			w.tell([]string{name})
		}
	}
}

// tellAll says that everything may have been written.
func (s *station) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.lines {
		w.tell(nil)
	}
}

// cut makes every line useless.
func (s *station) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.lines {
		w.end()
	}
}

// open counts the lines that are open, opened those that ever were.
func (s *station) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, w := range s.lines {
		if !w.closed {
			n++
		}
	}
	return n
}

func (s *station) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// reads returns those of the line that was opened last.
func (s *station) reads() []reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines[len(s.lines)-1].reads)
}

// reading is one call of Read.
type reading struct {
	at     time.Time
	queues []string
}

// wire is a line to a station. Its fields belong to the station's lock.
type wire struct {
	station   *station
	tracked   map[string]bool
	pending   []string
	all       bool
	arrived   chan struct{}
	ended     chan struct{}
	isEnded   bool
	reads     []reading
	forgotten []string
	busy      bool
	closed    bool
}

var errCut = errors.New("connection reset by peer")

func (w *wire) Tells() bool   { return w.station.mute == nil }
func (w *wire) Reason() error { return w.station.mute }

// Read implements lookout.Line. What is written while it lasts is told: tracking
// begins with it.
func (w *wire) Read(ctx context.Context, queues []string) ([]queue.Count, error) {
	counts, slowness, err := w.look(queues)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(slowness)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.ended:
		err = errCut
	}
	w.station.set(func() { w.busy = false })
	return counts, err
}

func (w *wire) look(queues []string) ([]queue.Count, time.Duration, error) {
	s := w.station
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.busy || w.closed {
		s.t.Errorf("a read on a line that is busy (%v) or closed (%v)", w.busy, w.closed)
	}
	if w.isEnded {
		return nil, 0, errCut
	}
	w.busy = true
	w.reads = append(w.reads, reading{time.Now(), slices.Clone(queues)})
	counts := make([]queue.Count, 0, len(queues))
	for _, name := range queues {
		w.tracked[name] = !s.broken[name]
		if s.broken[name] {
			counts = append(counts, queue.Unknown(errors.New("the key holds no list")))
		} else {
			counts = append(counts, queue.Known(s.depths[name], time.Now()))
		}
	}
	return counts, s.slowness, nil
}

// Forget implements lookout.Line.
func (w *wire) Forget(queues []string) {
	w.station.mu.Lock()
	defer w.station.mu.Unlock()
	w.forgotten = append(w.forgotten, queues...)
	for _, name := range queues {
		delete(w.tracked, name)
	}
}

// Told implements lookout.Line.
func (w *wire) Told(ctx context.Context) ([]string, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.ended:
			return nil, errCut
		case <-w.arrived:
		}
		w.station.mu.Lock()
		names, all := w.pending, w.all
		w.pending, w.all = nil, false
		w.station.mu.Unlock()
		if all {
			return nil, nil
		}
		if len(names) > 0 {
			return names, nil
		}
	}
}

// Close implements lookout.Line.
func (w *wire) Close() error {
	w.station.mu.Lock()
	defer w.station.mu.Unlock()
	if w.closed {
		w.station.t.Error("a line was closed twice")
	}
	w.closed = true
	w.end()
	return nil
}

// tell and end are called with the lock held.
func (w *wire) tell(names []string) {
	w.pending = append(w.pending, names...)
	w.all = w.all || names == nil
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

func (w *wire) end() {
	if !w.isEnded {
		w.isEnded = true
		close(w.ended)
	}
}

// ledger is a Sink and a Recorder that remembers.
type ledger struct {
	mu       sync.Mutex
	told     map[string][]queue.Count
	tellings int
	ways     []string
	reads    int
	failures int
	gone     int
}

// Waiting implements lookout.Sink.
func (l *ledger) Waiting(_ queue.BrokerRef, counts map[string]queue.Count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told == nil {
		l.told = map[string][]queue.Count{}
	}
	l.tellings++
	for name, c := range counts {
		l.told[name] = append(l.told[name], c)
	}
}

func (l *ledger) Lookout(_ queue.BrokerRef, telling bool, reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if telling {
		l.ways = append(l.ways, "told")
		return
	}
	l.ways = append(l.ways, reason.Error())
}

func (l *ledger) Read(_ queue.BrokerRef, _ int, _ time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if err != nil {
		l.failures++
	}
}

func (l *ledger) Forget(queue.BrokerRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone++
}

// counts is what was told of a queue, -1 for unknown.
func (l *ledger) counts(name string) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var counts []int64
	for _, c := range l.told[name] {
		if c.Err != nil {
			c.N = -1
		}
		counts = append(counts, c.N)
	}
	return counts
}

// last is the latest that was told of each queue.
func (l *ledger) last() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[string]int64{}
	for name := range maps.Keys(l.told) {
		counts := l.told[name]
		last[name] = counts[len(counts)-1].N
	}
	return last
}
