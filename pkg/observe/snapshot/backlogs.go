package snapshot

import (
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// PutBacklogs records how many messages wait in single queues of a broker, which are
// named as the broker names them. Such a count goes over that of the sample if it
// is younger and tells of more messages, or if that is unknown or too old, until a
// sample that is younger itself. Fewer messages than in the sample are no news: they
// have gone somewhere, mostly to a worker, and only a sample tells of both places at
// once; between the two a task would count nowhere. The latest count is kept all the
// same: the next sample may have been read before it, and know less. A sample that does
// not know a backlog leaves the latest count of it. Counts that are zero or unknown, and
// those of queues that are not known, are ignored.
//
// The cost follows the number of counts, not of queues.
func (s *Store) PutBacklogs(ref queue.BrokerRef, counts map[string]queue.Count) {
	s.update(ref, func(b *Broker) *Broker {
		if b == nil {
			return nil
		}
		return b.withBacklogs(counts)
	})
}

// withBacklogs returns b itself if the counts tell it nothing.
func (b *Broker) withBacklogs(counts map[string]queue.Count) *Broker {
	var news map[string]arrival
	for name, c := range counts {
		if c.Err != nil || c.N == 0 {
			continue // most of many: not even looked up
		}
		a, ok := b.arrival(name)
		if !ok || c.At.Before(a.last.At) {
			continue
		}
		if news == nil {
			news = map[string]arrival{}
		}
		news[name] = a.with(c)
	}
	if news == nil {
		return b
	}
	next := *b
	next.arrived = b.arrived.with(news)
	return &next
}

// arrival is what has arrived in a queue of that name since its sample, and whether
// there is such a queue. Where nothing has, last is a zero of the time of the sample.
func (b *Broker) arrival(name string) (arrival, bool) {
	if a, ok := b.arrived.of(name); ok {
		return a, true
	}
	if b.sample == nil {
		_, declared := b.Queues[name]
		return arrival{}, declared
	}
	depth, ok := b.sample.Queues[name]
	return arrival{last: queue.Known(0, countedAt(depth.Backlog, b.sample.At))}, ok
}

// countedAt is when a backlog of a sample was counted. What is unknown is so since the
// sample was taken.
func countedAt(c queue.Count, sampledAt time.Time) time.Time {
	if c.Err != nil {
		return sampledAt
	}
	return c.At
}

// arrival is what was read of one queue since its backlog was sampled: the largest count
// and the latest, which is never zero.
type arrival struct{ most, last queue.Count }

// with takes in a count that is not older than the latest.
func (a arrival) with(c queue.Count) arrival {
	a.last = c
	if c.N > a.most.N {
		a.most = c
	}
	return a
}

// since is what of an arrival was read since then, and whether anything was.
func (a arrival) since(then time.Time) (arrival, bool) {
	switch {
	case a.last.At.Before(then):
		return arrival{}, false
	case a.most.At.Before(then):
		a.most = a.last
	}
	return a, true
}

// over is the backlog that is known with an arrival: sampled, or one that tells of more,
// of those that are not older than oldest.
func (a arrival) over(sampled queue.Count, oldest time.Time) queue.Count {
	for _, c := range [...]queue.Count{a.last, a.most} {
		if c.N > 0 && !c.At.Before(oldest) && (sampled.Err != nil || c.N > sampled.N) {
			sampled = c
		}
	}
	return sampled
}

// arrivals holds what has arrived by the name of the queue, in layers of which a later
// one goes over an earlier. Each layer is more than twice as large as the next, so that
// to add a count copies few others. It is immutable.
type arrivals []map[string]arrival

func (a arrivals) of(name string) (arrival, bool) {
	for _, layer := range slices.Backward(a) {
		if found, ok := layer[name]; ok {
			return found, true
		}
	}
	return arrival{}, false
}

// with adds a layer, merged with those that it is too large for.
func (a arrivals) with(top map[string]arrival) arrivals {
	for len(a) > 0 && len(a[len(a)-1]) <= 2*len(top) {
		merged := maps.Clone(a[len(a)-1])
		maps.Copy(merged, top)
		a, top = a[:len(a)-1], merged
	}
	return append(slices.Clip(a), top)
}

// after keeps what was read since a sample, in one layer; and where the sample does not
// know, what was read last.
func (a arrivals) after(sample *queue.Sample) arrivals {
	kept := map[string]arrival{}
	for _, layer := range a {
		for name, found := range layer {
			depth, ok := sample.Queues[name]
			if !ok {
				continue
			}
			since, ok := found.since(countedAt(depth.Backlog, sample.At))
			if !ok && depth.Backlog.Err != nil {
				since, ok = arrival{most: found.last, last: found.last}, true
			}
			if ok {
				kept[name] = since
			}
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return arrivals{kept}
}
