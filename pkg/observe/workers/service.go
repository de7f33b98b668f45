package workers

import (
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/beats"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/flow"
)

const (
	// maxTimed bounds the queues of a worker whose times are followed: the cost grows
	// with the square of them.
	maxTimed = 100
	// forgetService is how long it is remembered what the workers of a queue have done
	// that nobody serves any more: a queue whose workers come once a day is not begun
	// with anew.
	forgetService = 48 * time.Hour
)

// service is what the workers that serve a queue have done, of whatever queue the
// tasks were.
type service struct {
	flow.Flow
	// with counts the workers that serve each of the queues that these workers serve.
	with map[string]int
}

// share is what a worker has added to services.
type share struct {
	queues []string
	active int64
}

// account adds what a worker has done since its heartbeat before to the services of
// its queues. Of a gap in the heartbeats nothing is known: it adds nothing.
func (b *book) account(e *entry, before beats.Beat, processedBefore int64, now time.Time) {
	b.serveWith(e)
	var busy time.Duration
	var begun int64
	if !before.At.IsZero() && before.Active.Known && now.Sub(before.At) <= e.patience() {
		busy = time.Duration(float64(before.Active.N+e.Active.N) / 2 * float64(now.Sub(before.At)))
		begun = max(0, e.processed.N-processedBefore)
	}
	for _, name := range e.share.queues {
		b.services[name].Add(now, busy, begun, e.Active.N-e.share.active)
	}
	e.share.active = e.Active.N
}

// serveWith notes which queues a worker serves.
func (b *book) serveWith(e *entry) {
	names := e.queueNames()
	if slices.Equal(names, e.share.queues) {
		return
	}
	b.leave(e)
	e.share = share{queues: names}
	for _, name := range names {
		f := b.services[name]
		if f == nil {
			f = &service{with: map[string]int{}}
			b.services[name] = f
		}
		for _, other := range names {
			f.with[other]++
		}
	}
}

// leave takes a worker out of the services that it was part of. What it has done
// stays.
func (b *book) leave(e *entry) {
	for _, name := range e.share.queues {
		f := b.services[name]
		f.Leave(e.share.active)
		for _, other := range e.share.queues {
			if f.with[other]--; f.with[other] == 0 {
				delete(f.with, other)
			}
		}
	}
	e.share = share{}
}

// forgetServices drops what is known of queues that nobody has served for long.
func (b *book) forgetServices(now time.Time) {
	maps.DeleteFunc(b.services, func(_ string, s *service) bool {
		return len(s.with) == 0 && s.Idle(now) > forgetService
	})
}

// queueNames are the queues that a worker serves, sorted: by what it says itself, or
// by what is declared of it. Those that are of Celery's own making, one of each worker
// with worker_direct for example, are left out. Of too many there are none.
func (e *entry) queueNames() []string {
	names := make([]string, 0, len(e.Queues))
	for _, q := range e.Queues {
		names = append(names, q.Name)
	}
	if e.Queues == nil {
		names = append(names, e.declared.Queues...)
	}
	names = slices.DeleteFunc(names, celery.IsInternalQueue)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > maxTimed {
		return nil
	}
	return names
}
