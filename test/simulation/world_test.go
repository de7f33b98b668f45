package simulation_test

import (
	"container/heap"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// moment is a time, counted from the beginning of a schedule.
type moment = time.Duration

// epoch is the beginning as the program's code sees it.
func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// world is all that there is in one schedule.
type world struct {
	now    moment
	events events
	number int64 // of the latest event
	rng    *rand.Rand
	epoch  time.Time

	plan     plan
	broker   *broker
	cluster  *cluster
	hpa      *hpa
	lease    *lease
	replicas []*replica
	judge    *judge
	marks    marks
	procs    []*proc
	tale     *tale // nil if nobody reads it
	healed   bool  // no more faults, no more new tasks
}

// event is something that happens at a moment. Those of one moment happen in the order
// in which they were planned.
type event struct {
	at     moment
	number int64
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push implements heap.Interface.
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop implements heap.Interface.
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = event{}
	*e = (*e)[:len(*e)-1]
	return last
}

// after has something happen later.
func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.events, event{w.now + max(d, 0), w.number, do})
}

// run has events happen until a moment, or until there is nothing left to see.
func (w *world) run(until moment, done func() bool) {
	for len(w.events) > 0 && w.events[0].at <= until && w.judge.verdict == "" {
		next := heap.Pop(&w.events).(event)
		w.judge.elapse(next.at)
		w.now = next.at
		next.do()
		if done != nil && done() {
			return
		}
	}
}

// clock is the time as the program's code sees it.
func (w *world) clock() time.Time { return w.epoch.Add(w.now) }

// chance is true with that probability.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between is a length of time from least to most.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)+1))
}

// mostly is from least to most, and once in twenty times up to worst.
func (w *world) mostly(least, most, worst time.Duration) time.Duration {
	if w.chance(0.05) {
		return w.between(most, worst)
	}
	return w.between(least, most)
}

// proc is a coroutine: something that calls others and waits for them.
type proc struct {
	w      *world
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	ticket int // of the latest reason to go on
	ended  bool
	killed bool
}

// spawn begins a coroutine.
func (w *world) spawn(body func(p *proc)) *proc {
	p := &proc{w: w}
	p.resume, p.stop = iter.Pull(func(yield func(struct{}) bool) {
		p.yield = yield
		body(p)
		p.ended = true
	})
	w.procs = append(w.procs, p)
	p.wakeIn(0)
	return p
}

// wakeIn has p go on at a time, and not at the one that was meant before.
func (p *proc) wakeIn(d time.Duration) {
	p.ticket++
	ticket := p.ticket
	p.w.after(d, func() {
		if p.ticket == ticket && !p.ended && !p.killed {
			p.resume()
		}
	})
}

// park waits until somebody has p go on. It is false if p was killed meanwhile: then
// what is left of it must not wait any more.
func (p *proc) park() bool {
	if p.killed || !p.yield(struct{}{}) {
		p.killed = true
		return false
	}
	return true
}

// sleep waits for d.
func (p *proc) sleep(d time.Duration) bool {
	p.wakeIn(d)
	return p.park()
}

// kill ends p where it stands.
func (p *proc) kill() {
	p.killed = true
	p.stop()
}

// end ends all that still waits.
func (w *world) end() {
	for _, p := range w.procs {
		p.kill()
	}
}

// tale is what has happened, for people.
type tale struct{ lines []string }

// say adds to the tale, if anybody reads it.
func (w *world) say(format string, args ...any) {
	if w.tale != nil {
		w.tale.lines = append(w.tale.lines, fmt.Sprintf("%12s  ", w.now)+fmt.Sprintf(format, args...))
	}
}
