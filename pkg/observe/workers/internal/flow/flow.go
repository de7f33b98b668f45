package flow

import (
	"errors"
	"slices"
	"time"
)

const (
	// markInterval is the time between two marks of a flow, maxMarks how many are
	// kept: half an hour.
	markInterval = 5 * time.Second
	maxMarks     = 360
	// enoughTasks is over how many tasks, the latest, their mean runtime is taken;
	// leastDone how many have to have ended.
	enoughTasks = 50
	leastDone   = 2
	// enoughDone tasks within leastSpan or longer make a rate; fewer do where there are
	// no more.
	enoughDone = 20
	leastSpan  = 5 * time.Second
	// rateSpan is how far back a rate looks at the most.
	rateSpan = 10 * time.Minute
)

// Why no pace is known.
var (
	ErrFewTasks    = errors.New("too few tasks have ended yet to know their mean runtime")
	ErrNothingDone = errors.New("no task has ended for 10m0s, or since workers are heard")
)

// Flow is what some workers have done. The zero value is that of workers that have
// done nothing yet. It is not safe for concurrent use.
type Flow struct {
	mark
	// marks are the states before, oldest first.
	marks []mark
}

// mark is the state of a flow at a time.
type mark struct {
	at time.Time
	// busy is how long all tasks together have executed, in seconds.
	busy float64
	// begun is how many tasks have been begun, active how many execute.
	begun, active int64
}

// Add adds what a worker has done until now: for how long its tasks have executed, all
// together, how many it has begun, and how many more execute than before.
func (f *Flow) Add(now time.Time, busy time.Duration, begun, active int64) {
	if len(f.marks) == 0 || now.Sub(f.marks[len(f.marks)-1].at) >= markInterval {
		f.marks = append(f.marks, f.mark)
		f.marks[len(f.marks)-1].at = now
		if len(f.marks) > maxMarks {
			f.marks = slices.Delete(f.marks, 0, 1)
		}
	}
	f.at, f.busy, f.begun, f.active = now, f.busy+busy.Seconds(), f.begun+begun, f.active+active
}

// Leave takes out a worker with so many tasks that execute. What it has done stays.
func (f *Flow) Leave(active int64) { f.active -= active }

// Idle is for how long nothing was added.
func (f *Flow) Idle(now time.Time) time.Duration { return now.Sub(f.at) }

// Runtime is the mean time that a task executes, by Little's law: the tasks that
// executed at a time, added up over time, by the number of tasks. Those that were
// begun before or have not ended yet count half each (J. D. C. Little, A Proof for the
// Queuing Formula L = λW, 1961). The error is ErrFewTasks.
func (f *Flow) Runtime() (time.Duration, error) {
	var best float64
	for _, m := range slices.Backward(f.marks) {
		begun, more := f.begun-m.begun, f.active-m.active
		tasks := float64(begun) - float64(more)/2
		if begun-more >= leastDone {
			best = (f.busy - m.busy) / tasks
		}
		if tasks >= enoughTasks {
			break
		}
	}
	if best <= 0 {
		return 0, ErrFewTasks
	}
	return time.Duration(best * float64(time.Second)), nil
}

// Rate is how many tasks end in a second, which is how many are taken while there are
// some. The error is ErrNothingDone.
func (f *Flow) Rate(now time.Time) (float64, error) {
	var best float64
	for _, m := range slices.Backward(f.marks) {
		span := now.Sub(m.at)
		if span > rateSpan {
			break
		}
		if span < leastSpan {
			continue
		}
		done := f.begun - m.begun - (f.active - m.active)
		best = float64(done) / span.Seconds()
		if done >= enoughDone {
			break
		}
	}
	if best <= 0 {
		return 0, ErrNothingDone
	}
	return best, nil
}
