package unacked

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// InFlight is what one sample says of the messages that workers hold, and of the
// tasks that they execute.
type InFlight struct {
	queues map[string]tally
	// Unattributed counts the messages of no known queue; example is the tag
	// of one, reason why, for one of them.
	Unattributed int64
	example      string
	reason       error
	// estimated is true if the counts were scaled from a random choice.
	estimated bool
	// unknown is why no count is known; it stands for all queues.
	unknown error
}

// Attribute assigns the messages of the last listing to queues, and the tasks that
// execute without being among them.
func (h *Holder) Attribute(b *Bindings) InFlight {
	f := InFlight{queues: map[string]tally{}, unknown: h.err, estimated: h.estimating}
	if f.unknown != nil {
		return f
	}
	if h.pending > 0 {
		f.unknown = fmt.Errorf("in flight of every queue: %d of %d entries of key %q are still to be read for the first time: wait for the next samples", h.pending, h.length.Val(), h.keys.Unacked)
		return f
	}
	lost := map[routeID]error{}
	for id := firstRoute; int(id) < len(h.counts); id++ {
		if err := f.add(b, h.routes.list[id], h.counts[id]); err != nil {
			lost[id] = err
		}
	}
	if n := h.counts[noRoute].held; n > 0 {
		f.lose(n, h.shapeError())
		lost[noRoute] = f.reason
	}
	f.example = h.example(lost)
	h.settle(&f)
	f.addExecuting(h.executing)
	return f
}

// shapeError says why an entry has no route.
func (h *Holder) shapeError() error {
	return fmt.Errorf("not of the shape [message, exchange, routing key], or larger than %d MiB: look at it with HGET %s, and remove it (HDEL, and ZREM from %s) if no worker holds it",
		maxEntry>>20, h.keys.Unacked, h.keys.UnackedIndex)
}

// add counts the messages of one route.
func (f *InFlight) add(b *Bindings, r route, c tally) error {
	if c.held == 0 {
		return nil
	}
	queues, err := b.resolve(r)
	if err != nil {
		f.lose(c.held, fmt.Errorf("exchange %s: %w", quoteShort(r.exchange), err))
		return f.reason
	}
	for _, name := range queues {
		f.queues[name] = f.queues[name].plus(c)
	}
	return nil
}

func (f *InFlight) lose(n int64, reason error) {
	f.Unattributed += n
	f.reason = reason
}

// settle compares with the length of the hash: exactly, or by scaling.
func (h *Holder) settle(f *InFlight) {
	known, length := h.known(), h.length.Val()
	if h.estimating {
		f.scale(known, length)
		return
	}
	if missing := length - known - int64(h.vanished); missing > 0 {
		f.lose(missing, fmt.Errorf("in the hash %s but missing in the index %s, so that no worker will ever restore them: remove them (HDEL) if no worker holds them", h.keys.Unacked, h.keys.UnackedIndex))
	}
}

// scale turns the counts of a random choice of n messages into those of all. A
// queue that was seen holds at least one message, and at least one that is not
// scheduled: an estimate is never zero.
func (f *InFlight) scale(n, total int64) {
	if n == 0 {
		f.unknown = errors.New("in flight of every queue: none of the chosen entries could be read")
		return
	}
	times := func(c int64) int64 {
		return int64(math.Round(float64(c) * float64(total) / float64(n)))
	}
	for name, c := range f.queues {
		held := max(1, times(c.held))
		f.queues[name] = tally{held, min(times(c.scheduled), held-1)}
	}
	f.Unattributed = times(f.Unattributed)
}

// Queues returns the names of the queues with messages in flight.
func (f *InFlight) Queues() []string { return slices.Collect(maps.Keys(f.queues)) }

// Depth returns the counts of one queue, as of at.
func (f *InFlight) Depth(name string, at time.Time) (held, scheduled queue.Count) {
	err := f.unknown
	c := f.queues[name]
	if err == nil && c.held == 0 {
		err = f.zeroError(name)
	}
	if err != nil {
		return queue.Unknown(err), queue.Unknown(err)
	}
	return queue.Known(c.held, at), queue.Known(c.scheduled, at)
}

// zeroError is why a count of zero is no knowledge, or nil if it is.
func (f *InFlight) zeroError(name string) error {
	switch {
	case f.Unattributed > 0:
		return fmt.Errorf("in flight of queue %q: %d messages in flight may be of any queue%s: %w", name, f.Unattributed, f.exampleText(), f.reason)
	case f.estimated:
		return fmt.Errorf("in flight of queue %q: none of %d messages chosen at random is of this queue, which proves nothing", name, estimateSize)
	}
	return nil
}

func (f *InFlight) exampleText() string {
	if f.example == "" {
		return ""
	}
	return ", one with tag " + quoteShort(f.example)
}

// example finds a tag of one of the routes.
func (h *Holder) example(routes map[routeID]error) string {
	if len(routes) == 0 {
		return ""
	}
	for _, r := range h.ranges {
		for _, tag := range r.Val() {
			m, ok := h.messages[keyOf(tag)]
			if _, wanted := routes[m.route]; ok && wanted {
				return tag
			}
		}
	}
	return ""
}

// quoteShort quotes a string from outside, shortened.
func quoteShort(s string) string {
	const limit = 48
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
