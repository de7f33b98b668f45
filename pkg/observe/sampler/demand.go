package sampler

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// errNotSampled says that a broker has no loop, or no longer.
var errNotSampled = errors.New("it is not among the brokers that are sampled")

// demand is what is wanted of a loop beside its schedule.
type demand struct {
	mu    sync.Mutex
	next  *turn         // the first that has not begun
	now   chan struct{} // holds something while the next turn is not to be waited for
	ended chan struct{} // closed when there are no more turns
}

// turn is one that may be waited for.
type turn struct {
	done chan struct{} // closed when the store has what it gave
	err  error         // why it failed; to be read after done
}

func newDemand() *demand {
	return &demand{next: newTurn(), now: make(chan struct{}, 1), ended: make(chan struct{})}
}

func newTurn() *turn { return &turn{done: make(chan struct{})} }

// fresh waits for a turn that has not begun yet.
func (d *demand) fresh(ctx context.Context, ref queue.BrokerRef) error {
	awaited := d.hurry()
	select {
	case <-awaited.done:
		return awaited.err
	case <-d.ended:
		return fmt.Errorf("broker %s cannot be sampled afresh: %w", ref, errNotSampled)
	case <-ctx.Done():
		return fmt.Errorf("broker %s: no fresh sample could be had in time: %w", ref, context.Cause(ctx))
	}
}

// hurry has the next turn begin now, and returns it.
func (d *demand) hurry() *turn {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case d.now <- struct{}{}:
	default:
	}
	return d.next
}

// begin returns the turn that begins now. Whatever was wanted until now, it meets.
func (d *demand) begin() *turn {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.now:
	default:
	}
	begun := d.next
	d.next = newTurn()
	return begun
}

// end lets go who waits for that turn.
func (t *turn) end(err error) {
	t.err = err
	close(t.done)
}
