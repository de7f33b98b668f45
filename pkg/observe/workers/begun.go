package workers

import (
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/begun"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// AddBegun adds to what is in flight by a sample the tasks that may have begun unheard.
// With early acknowledgement a task is gone from the broker when it begins, and its worker
// tells of it by its next heartbeat, 2 s later with Celery's default. So fewer tasks than
// before are believed only when all live workers have been heard that may execute them,
// and have been asked for their queues if need be; and half a second later at the
// earliest, since a worker that has just started may not have been heard yet. Until then
// as many are in flight as before. Where tasks were only ever seen to be acknowledged
// late, what leaves the broker has ended, and nothing is added.
//
// The sample is to have been read by now, and to have in flight what Executing has told,
// which is to be handed over. It is changed; it must not have been handed to anybody else.
func (s *Store) AddBegun(ref queue.BrokerRef, sample *queue.Sample, told []monitor.ExecutingTask, now time.Time) {
	s.edit(ref, func(b *shelf) {
		b.enteredAt = now
		b.ledger.Enter(sample, told, func(yield func(begun.Worker) bool) {
			for _, e := range b.workers {
				if e.isLive(now) && !yield(b.taker(e)) { // others count as busy
					return
				}
			}
		}, now)
	})
}

// taker is a worker as one that may have taken tasks.
func (s *shelf) taker(e *entry) begun.Worker {
	w := begun.Worker{ToldAt: s.toldAllAt(e)}
	if e.Queues == nil && !e.declared.AcksLate {
		w.Queues, w.Anywhere = e.declared.Queues, len(e.declared.Queues) == 0
	}
	for _, q := range e.Queues {
		w.Queues = append(w.Queues, q.Name)
	}
	return w
}

// toldAllAt is by when a worker had told all that it executed: its latest heartbeat, or
// the one before as long as it is being asked what it executes.
func (s *shelf) toldAllAt(e *entry) time.Time {
	isAsked := s.mute == nil && s.enteredAt.Sub(e.toldAllAt) < maxSilence && !s.isAmbiguous(e, s.enteredAt)
	if e.IsAwaited(monitor.MethodActive) && !isAsked {
		return e.HeardAt
	}
	return e.toldAllAt
}

// views are workers as they are handed out.
func (s *shelf) views(entries []*entry) []Worker {
	views := make([]Worker, len(entries))
	for i, e := range entries {
		views[i] = e.Worker
		if s.ledger.IsOpen() {
			views[i].Begun = s.ledger.MayBeOf(s.taker(e))
		}
	}
	return views
}
