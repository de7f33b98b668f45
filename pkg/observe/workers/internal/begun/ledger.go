package begun

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// delivery is how long after a sample a worker must be heard for what it says to be later
// than the sample: a heartbeat takes milliseconds, and longer where the CPU is short.
const delivery = 500 * time.Millisecond

// Worker is what a ledger needs to know of one that lives.
type Worker struct {
	// ToldAt is by when it had told all that it executes.
	ToldAt time.Time
	// Queues are those from which it takes tasks. Anywhere is set where that is not known:
	// it may be any.
	Queues   []string
	Anywhere bool
}

// Ledger knows for each queue of one broker how many tasks there were before some left.
// What has left may have begun, until everybody has been heard who may execute it. So a
// number of tasks falls by what workers say, and never by their silence; it is never more
// than it has really been since they were heard last. Make it with NewLedger. It is pure:
// not safe for concurrent use, without a clock.
type Ledger struct {
	accounts map[string]*account
	open     map[string]*account // those from which tasks have left that may have begun
}

// account is what is known of one queue.
type account struct {
	// tasks is how many there were at the latest sample, on the broker and as workers told.
	tasks int64
	// before are the numbers before some left, in the order of time; each is less than
	// the one before it, and more than tasks.
	before []level
	// early and late tell whether a task of it was told of that the broker had forgotten
	// when it executed, and one that it had not.
	early, late bool
}

// level is a number of tasks, and when it was first found to be less.
type level struct {
	tasks  int64
	leftAt time.Time
}

// NewLedger makes a ledger of no queue.
func NewLedger() *Ledger { return &Ledger{accounts: map[string]*account{}} }

// Enter takes in a sample that was read by now, and in which the tasks that workers tell
// are counted in flight, and adds to what is in flight by it what may have begun. Queues
// that it lacks are forgotten. Of those with an unknown count nothing changes. The cost
// follows the number of queues, and of workers if something may have begun.
func (l *Ledger) Enter(sample *queue.Sample, told []monitor.ExecutingTask, workers iter.Seq[Worker], now time.Time) {
	l.note(sample, now)
	l.classify(told)
	l.open = map[string]*account{}
	for name, a := range l.accounts {
		if len(a.before) > 0 {
			l.open[name] = a
		}
	}
	if len(l.open) > 0 {
		l.settle(workers, now)
	}
	for name, a := range l.open {
		if d := sample.Queues[name]; d.InFlight.Err == nil {
			d.InFlight.N += a.begun()
			sample.Queues[name] = d
		}
	}
}

// note takes in the numbers of a sample.
func (l *Ledger) note(sample *queue.Sample, now time.Time) {
	for name := range l.accounts {
		if _, ok := sample.Queues[name]; !ok {
			delete(l.accounts, name)
		}
	}
	for name, d := range sample.Queues {
		if d.Backlog.Err != nil || d.InFlight.Err != nil {
			continue
		}
		tasks := d.Backlog.N + d.InFlight.N
		a := l.accounts[name]
		if a == nil {
			if tasks == 0 {
				continue // most of many
			}
			a = &account{}
			l.accounts[name] = a
		}
		a.note(tasks, now)
	}
}

func (a *account) note(tasks int64, now time.Time) {
	if a.tasks > tasks && !a.isLate() {
		a.before = append(a.before, level{a.tasks, now})
	}
	a.before = slices.DeleteFunc(a.before, func(v level) bool { return v.tasks <= tasks })
	a.tasks = tasks
}

// isLate reports whether tasks were only ever seen to be acknowledged late: what leaves
// the broker has ended then.
func (a *account) isLate() bool { return a.late && !a.early }

// begun is how many tasks have left that may have begun, of an account that is open.
func (a *account) begun() int64 { return a.before[0].tasks - a.tasks }

// classify takes in how tasks are acknowledged.
func (l *Ledger) classify(told []monitor.ExecutingTask) {
	for _, t := range told {
		a := l.accounts[t.Queue]
		if a == nil {
			continue
		}
		a.early, a.late = a.early || t.Acknowledged, a.late || !t.Acknowledged
		if a.isLate() {
			a.before = nil
		}
	}
}

// settle forgets what had left when all were heard who may execute it: they have told of
// it, or it has ended.
func (l *Ledger) settle(workers iter.Seq[Worker], now time.Time) {
	everywhere, heard := now, map[string]time.Time{}
	for w := range workers {
		if w.Anywhere {
			everywhere = earlier(everywhere, w.ToldAt)
		}
		for _, name := range w.Queues {
			if at, ok := heard[name]; !ok || w.ToldAt.Before(at) {
				heard[name] = w.ToldAt
			}
		}
	}
	for name, a := range l.open {
		at := everywhere
		if own, ok := heard[name]; ok {
			at = earlier(at, own)
		}
		a.before = slices.DeleteFunc(a.before, func(v level) bool { return !v.isUntold(at) })
		if len(a.before) == 0 {
			delete(l.open, name)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// isUntold reports whether a worker that was heard at some time may execute what has left,
// and not have told of it.
func (v level) isUntold(heardAt time.Time) bool { return heardAt.Before(v.leftAt.Add(delivery)) }

// MayBeOf returns how many tasks have left the broker, as of the latest sample, that this
// worker may execute, and has not told of.
func (l *Ledger) MayBeOf(w Worker) int64 {
	if w.Anywhere {
		w.Queues = slices.Collect(maps.Keys(l.open))
	}
	sum := int64(0)
	for _, name := range w.Queues {
		if a := l.open[name]; a != nil && a.before[len(a.before)-1].isUntold(w.ToldAt) {
			sum += a.begun()
		}
	}
	return sum
}
