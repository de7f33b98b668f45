package pace

import (
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// ErrNobodyServes says why no pace is known.
var ErrNobodyServes = errors.New("no worker is known to serve the queue")

// AddTimes fills in the times of the queues of a sample. Unserved says why no worker is
// known to serve a queue, where that is so.
func (s *Services) AddTimes(sample *queue.Sample, unserved error, now time.Time) {
	for name, d := range sample.Queues {
		d.Wait, d.Work = s.waitOf(sample, name, unserved, now), s.workOf(d, name, unserved)
		sample.Queues[name] = d
	}
}

// serviceOf is the service of a queue, nil if nobody is known to serve it.
func (s *Services) serviceOf(name string) *service {
	if f := s.byQueue[name]; f != nil && len(f.with) > 0 {
		return f
	}
	return nil
}

// waitOf is the backlog by the rate at which tasks are taken, of all queues that the
// queue's workers serve: they take from each in turn.
func (s *Services) waitOf(sample *queue.Sample, name string, unserved error, now time.Time) queue.Count {
	backlog := sample.Queues[name].Backlog
	if backlog.Err != nil || backlog.N == 0 {
		return backlog
	}
	f := s.serviceOf(name)
	if f == nil {
		return queue.Unknown(unserved)
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
func (s *Services) workOf(d queue.Depth, name string, unserved error) queue.Count {
	tasks := d.Tasks()
	if tasks.Err != nil || tasks.N == 0 {
		return tasks
	}
	f := s.serviceOf(name)
	if f == nil {
		return queue.Unknown(unserved)
	}
	runtime, err := f.Runtime()
	if err != nil {
		return queue.Unknown(err)
	}
	return queue.Known(int64(float64(tasks.N)*float64(runtime)/float64(time.Millisecond)), tasks.At)
}
