package pace

import (
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/flow"
)

const (
	// maxTimed bounds the queues of a worker whose times are followed: the cost grows
	// with the square of them.
	maxTimed = 100
	// forgetAfter is how long it is remembered what the workers of a queue have done
	// that nobody serves any more: a queue whose workers come once a day is not begun
	// with anew.
	forgetAfter = 48 * time.Hour
)

// Services is what the workers of each queue of a broker have done. It is not safe for
// concurrent use.
type Services struct{ byQueue map[string]*service }

// service is what the workers that serve a queue have done, of whatever queue the
// tasks were.
type service struct {
	flow.Flow
	// with counts the workers that serve each of the queues that these workers serve.
	with map[string]int
}

// Share is what a worker has added to services. The zero value is that of one that has
// added nothing.
type Share struct {
	queues []string
	active int64
}

// Work is what a worker has done since it was accounted for before.
type Work struct {
	// Busy is for how long its tasks have executed, all together.
	Busy time.Duration
	// Begun is how many tasks it has begun, Active how many execute now.
	Begun, Active int64
}

// NewServices returns services of no queue.
func NewServices() *Services { return &Services{byQueue: map[string]*service{}} }

// Account adds what a worker has done to the services of its queues, which are sorted,
// each named once. Of too many none is followed.
func (s *Services) Account(share *Share, queues []string, done Work, now time.Time) {
	s.join(share, queues)
	for _, name := range share.queues {
		s.byQueue[name].Add(now, done.Busy, done.Begun, done.Active-share.active)
	}
	share.active = done.Active
}

// join notes which queues a worker serves.
func (s *Services) join(share *Share, queues []string) {
	if len(queues) > maxTimed {
		queues = nil
	}
	if slices.Equal(queues, share.queues) {
		return
	}
	s.Leave(share)
	share.queues = queues
	for _, name := range queues {
		f := s.byQueue[name]
		if f == nil {
			f = &service{with: map[string]int{}}
			s.byQueue[name] = f
		}
		for _, other := range queues {
			f.with[other]++
		}
	}
}

// Leave takes a worker out of the services that it was part of. What it has done
// stays.
func (s *Services) Leave(share *Share) {
	for _, name := range share.queues {
		f := s.byQueue[name]
		f.Leave(share.active)
		for _, other := range share.queues {
			if f.with[other]--; f.with[other] == 0 {
				delete(f.with, other)
			}
		}
	}
	*share = Share{}
}

// Forget drops what is known of queues that nobody has served for long.
func (s *Services) Forget(now time.Time) {
	maps.DeleteFunc(s.byQueue, func(_ string, f *service) bool {
		return len(f.with) == 0 && f.Idle(now) > forgetAfter
	})
}
