package workers

import (
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// errNobodyServes says why no pace is known.
var errNobodyServes = errors.New("no worker is known to serve the queue")

// AddTimes fills in what the workers of a broker tell of the times of its queues:
// how long a task that is sent now will wait, and how much work there is. The sample
// is changed; it must not have been handed to anybody else yet.
func (s *Store) AddTimes(ref queue.BrokerRef, sample *queue.Sample, now time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.books[ref]
	for name, d := range sample.Queues {
		d.Wait, d.Work = waitOf(b, sample, name, now), workOf(b, d, name)
		sample.Queues[name] = d
	}
}

// serviceOf is the service of a queue.
func (s *shelf) serviceOf(name string) (*service, error) {
	switch {
	case s == nil:
		return nil, fmt.Errorf("%w: they are switched off (workers.heartbeats)", ErrNotListening)
	case s.services[name] != nil && len(s.services[name].with) > 0:
		return s.services[name], nil
	case s.deaf != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotListening, s.deaf)
	case s.mute != nil:
		return nil, fmt.Errorf("%w: %w: %w", errNobodyServes, ErrNoControl, s.mute)
	}
	return nil, errNobodyServes
}

// waitOf is the backlog by the rate at which tasks are taken, of all queues that the
// queue's workers serve: they take from each in turn.
func waitOf(b *shelf, sample *queue.Sample, name string, now time.Time) queue.Count {
	backlog := sample.Queues[name].Backlog
	if backlog.Err != nil || backlog.N == 0 {
		return backlog
	}
	f, err := b.serviceOf(name)
	if err != nil {
		return queue.Unknown(err)
	}
	rate, err := f.Rate(now)
	if err != nil {
		return queue.Unknown(err)
	}
	waiting := int64(0)
	for other := range f.with {
		if d, ok := sample.Queues[other]; ok {
			if d.Backlog.Err != nil {
				return queue.Unknown(fmt.Errorf("backlog of queue %q, which the same workers serve: %w", other, d.Backlog.Err))
			}
			waiting += d.Backlog.N
		}
	}
	return queue.Known(int64(float64(waiting)/rate*1000), backlog.At)
}

// workOf is the tasks there are by their mean runtime.
func workOf(b *shelf, d queue.Depth, name string) queue.Count {
	tasks := d.Tasks()
	if tasks.Err != nil || tasks.N == 0 {
		return tasks
	}
	f, err := b.serviceOf(name)
	if err != nil {
		return queue.Unknown(err)
	}
	runtime, err := f.Runtime()
	if err != nil {
		return queue.Unknown(err)
	}
	return queue.Known(int64(float64(tasks.N)*float64(runtime)/float64(time.Millisecond)), tasks.At)
}
