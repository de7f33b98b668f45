package asking

import (
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

const (
	// AnswerTime bounds the wait for answers. Workers answer within milliseconds, or
	// not before they have finished something.
	AnswerTime = time.Second
	// MaxAsked bounds the workers that one message asks.
	MaxAsked = 200
	// refresh is after how long queues and slots are asked for again: both can be
	// changed by remote control.
	refresh = time.Minute
	// firstRetry and lastRetry bound the pause before a worker is asked again that
	// has not answered, which doubles. One of the solo pool cannot answer while it
	// executes, one that has remote control switched off never does.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// manyMisses is from how many questions in a row without an answer on none is to be
	// expected, some 10 s after the first. One that has just started, on a node that is
	// short of CPU, may miss the first ones.
	manyMisses = 4
)

// Questions are what remote control should ask a worker, by when it may be asked.
// Make them with New. They are not safe for concurrent use.
type Questions struct {
	from    map[monitor.Method]time.Time
	pending map[monitor.Method]bool
	misses  int
}

// New are the questions to a worker that was never asked.
func New() Questions {
	q := Questions{from: map[monitor.Method]time.Time{}, pending: map[monitor.Method]bool{}}
	q.Want(monitor.MethodActiveQueues)
	q.Want(monitor.MethodStats)
	return q
}

// Want asks as soon as may be.
func (q *Questions) Want(m monitor.Method) { q.pending[m] = true }

// Drop asks no more.
func (q *Questions) Drop(m monitor.Method) { q.pending[m] = false }

// IsDue reports whether a question is to be asked now.
func (q *Questions) IsDue(m monitor.Method, now time.Time) bool {
	return q.pending[m] && !now.Before(q.from[m])
}

// IsAwaited reports whether a question is open to which an answer is to be expected.
func (q *Questions) IsAwaited(m monitor.Method) bool { return q.pending[m] && q.misses < manyMisses }

// DueSince is since when a question may be asked, which orders them.
func (q *Questions) DueSince(m monitor.Method) time.Time { return q.from[m] }

// Answered is told of an answer.
func (q *Questions) Answered(m monitor.Method, now time.Time) {
	q.misses = 0
	if m == monitor.MethodActive {
		q.Drop(m)
		q.from[m] = now
		return
	}
	q.from[m] = now.Add(refresh)
}

// Missed is told that there was no answer.
func (q *Questions) Missed(m monitor.Method, now time.Time) {
	pause := firstRetry << min(q.misses, 5)
	q.misses++
	q.from[m] = now.Add(min(pause, lastRetry))
}
