package snapshot

import (
	"maps"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// PutBacklogs records how many messages wait in single queues of a broker, which are
// named as the broker names them. Such a count is kept over that of the sample if it
// is younger and tells of more messages, until a sample that is younger itself. Fewer
// messages than in the sample are no news: they have gone somewhere, mostly to a
// worker, and only a sample tells of both places at once; between the two a task would
// count nowhere. Counts that are unknown, and those of queues that are not known, are
// ignored.
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
	var news map[string]queue.Count
	for name, c := range counts {
		if c.Err != nil || c.N == 0 {
			continue // most of many: not even looked up
		}
		if known, ok := b.backlog(name); !ok || !goesOver(c, known, b.SampledAt()) {
			continue
		}
		if news == nil {
			news = map[string]queue.Count{}
		}
		news[name] = c
	}
	if news == nil {
		return b
	}
	next := *b
	next.arrived = b.arrived.with(news)
	return &next
}

// backlog is what is known of the backlog of a queue of that name, and whether there
// is such a queue. Before the first sample it is a zero without a time, unless
// messages have arrived.
func (b *Broker) backlog(name string) (queue.Count, bool) {
	if c, ok := b.arrived.count(name); ok {
		return c, true
	}
	if b.sample == nil {
		_, declared := b.Queues[name]
		return queue.Count{}, declared
	}
	depth, ok := b.sample.Queues[name]
	return depth.Backlog, ok
}

// goesOver tells whether c, which is known, is younger than what is known of a queue and
// tells of more messages. What is unknown is so since the sample was taken.
func goesOver(c, known queue.Count, sampledAt time.Time) bool {
	if known.Err != nil {
		known = queue.Known(0, sampledAt)
	}
	return c.N > known.N && !c.At.Before(known.At)
}

// arrivals holds counts by the name of their queue, in layers of which a later one
// goes over an earlier. Each layer is more than twice as large as the next, so that
// to add a count copies few others. It is immutable.
type arrivals []map[string]queue.Count

func (a arrivals) count(name string) (queue.Count, bool) {
	for _, layer := range slices.Backward(a) {
		if c, ok := layer[name]; ok {
			return c, true
		}
	}
	return queue.Count{}, false
}

// with adds a layer, merged with those that it is too large for.
func (a arrivals) with(top map[string]queue.Count) arrivals {
	for len(a) > 0 && len(a[len(a)-1]) <= 2*len(top) {
		merged := maps.Clone(a[len(a)-1])
		maps.Copy(merged, top)
		a, top = a[:len(a)-1], merged
	}
	return append(slices.Clip(a), top)
}

// over keeps the counts that go over a sample, in one layer.
func (a arrivals) over(sample *queue.Sample) arrivals {
	kept := map[string]queue.Count{}
	for _, layer := range a {
		for name, c := range layer {
			if depth, ok := sample.Queues[name]; ok && goesOver(c, depth.Backlog, sample.At) {
				kept[name] = c
			}
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return arrivals{kept}
}
