package begun

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// memory is for how long at least it is remembered how many tasks there were. Of tasks that
// begin without a pause for that long, each of them told some 2.5 s later, one in twelve is
// nowhere at a time: less than the tenth by which the HPA lets a metric differ.
const memory = 30 * time.Second

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

// Ledger knows for each queue of one broker how many tasks have left the broker, until
// everybody has been heard who may execute them. So a number of tasks falls by what
// workers say, and never by their silence; it is never more than it has been in the latest
// minute. Make it with NewLedger. It is pure: not safe for concurrent use, without a clock.
type Ledger struct {
	accounts map[string]*account
	open     map[string]*account // those from which tasks have left that may have begun
}

// account is what is known of one queue.
type account struct {
	// held is how many tasks the broker held at the latest sample, tasks how many there
	// were with those that workers told; told are the latter.
	held, tasks int64
	told        map[string]bool
	// left are those of which nobody has told yet, the oldest first; most is how many tasks
	// there were at the most lately, since the first of them left.
	left []departure
	most peak
	// early and late tell whether a task of it was told of that the broker had forgotten
	// when it executed, and one that it had not.
	early, late bool
}

// departure is some tasks that the broker was found to hold no more.
type departure struct {
	tasks int64
	at    time.Time
}

// peak is the largest number of those of the last 30 to 60 seconds.
type peak struct {
	now, before int64
	since       time.Time // of now
}

// see takes in a number.
func (p *peak) see(n int64, at time.Time) {
	if at.Sub(p.since) >= memory {
		p.now, p.before, p.since = 0, p.now, at
	}
	p.now = max(p.now, n)
}

// value is the largest number.
func (p *peak) value() int64 { return max(p.now, p.before) }

// NewLedger makes a ledger of no queue.
func NewLedger() *Ledger { return &Ledger{accounts: map[string]*account{}} }

// Enter takes in a sample that was read by now, in which the tasks that workers told are
// counted in flight, and adds to what is in flight by it what may have begun. Queues that
// it lacks are forgotten. Of those with an unknown count nothing changes. The cost follows
// the number of queues and of told tasks, and of workers if something may have begun.
func (l *Ledger) Enter(sample *queue.Sample, told []monitor.ExecutingTask, workers iter.Seq[Worker], now time.Time) {
	l.note(sample, l.classify(told), now)
	l.open = map[string]*account{}
	for name, a := range l.accounts {
		if len(a.left) > 0 {
			l.open[name] = a
		}
	}
	if len(l.open) > 0 {
		l.settle(workers, now)
	}
	for name, a := range l.accounts {
		if l.open[name] == nil {
			a.most = peak{now: a.tasks, since: now}
		}
	}
	for name, a := range l.open {
		if d := sample.Queues[name]; d.InFlight.Err == nil {
			d.InFlight.N += a.begun()
			sample.Queues[name] = d
		}
	}
}

// classify takes in how tasks are acknowledged, and returns those of each queue that the
// broker has forgotten.
func (l *Ledger) classify(told []monitor.ExecutingTask) map[string]map[string]bool {
	forgotten := map[string]map[string]bool{}
	for _, t := range told {
		if a := l.accounts[t.Queue]; a != nil {
			a.early, a.late = a.early || t.Acknowledged, a.late || !t.Acknowledged
		}
		if !t.Acknowledged {
			continue
		}
		if forgotten[t.Queue] == nil {
			forgotten[t.Queue] = map[string]bool{}
		}
		forgotten[t.Queue][t.ID] = true
	}
	return forgotten
}

// note takes in the numbers of a sample.
func (l *Ledger) note(sample *queue.Sample, told map[string]map[string]bool, now time.Time) {
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
		a.note(tasks, told[name], now)
	}
}

func (a *account) note(tasks int64, told map[string]bool, now time.Time) {
	held := tasks - int64(len(told))
	if held < a.held {
		a.left = append(a.left, departure{a.held - held, now})
	}
	for id := range told {
		if !a.told[id] {
			a.settleOne()
		}
	}
	if a.isLate() {
		a.left = nil
	}
	a.held, a.tasks, a.told = held, tasks, told
	a.most.see(tasks, now)
}

// settleOne is for a task that somebody has told of.
func (a *account) settleOne() {
	if len(a.left) == 0 {
		return
	}
	if a.left[0].tasks--; a.left[0].tasks == 0 {
		a.left = a.left[1:]
	}
}

// isLate reports whether tasks were only ever seen to be acknowledged late: what leaves
// the broker has ended then.
func (a *account) isLate() bool { return a.late && !a.early }

// begun is how many tasks may have begun unheard: no more than there are fewer now than
// lately. In a stream of short tasks some have always left, and most of them have ended.
func (a *account) begun() int64 {
	sum := int64(0)
	for _, d := range a.left {
		sum += d.tasks
	}
	return min(sum, a.most.value()-a.tasks)
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
		a.left = slices.DeleteFunc(a.left, func(d departure) bool { return !d.isUntold(at) })
		if len(a.left) == 0 {
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
func (d departure) isUntold(heardAt time.Time) bool { return heardAt.Before(d.at.Add(delivery)) }

// IsOpen reports whether any tasks have left the broker that may have begun.
func (l *Ledger) IsOpen() bool { return len(l.open) > 0 }

// MayBeOf returns how many tasks have left the broker, as of the latest sample, that this
// worker may execute, and has not told of.
func (l *Ledger) MayBeOf(w Worker) int64 {
	if w.Anywhere {
		w.Queues = slices.Collect(maps.Keys(l.open))
	}
	sum := int64(0)
	for _, name := range w.Queues {
		if a := l.open[name]; a != nil && a.left[len(a.left)-1].isUntold(w.ToldAt) {
			sum += a.begun()
		}
	}
	return sum
}
