package tracking

import (
	"context"
	"errors"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// errClosed is why a line has ended that its owner has closed.
var errClosed = errors.New("the line is closed")

// Line is a connection over which few queues are read often. It is safe for concurrent
// use. When it has failed once, it is of no use any more.
type Line struct {
	tracking *server.Tracking
	keys     celery.Keys
	purpose  server.Purpose
	address  string
	notices  *notices

	stop  context.CancelCauseFunc
	ended chan struct{} // closed when nothing is told any more, for the reason err
	err   error
}

// Open makes a line to an endpoint, which is told from now on when a queue is written
// that was read over it. It blocks for the endpoint's time-out at most. Purpose is what
// errors say after Open.
func Open(ctx context.Context, e server.Endpoint, keys celery.Keys, purpose server.Purpose) (*Line, error) {
	tracking, err := e.Track(ctx)
	if err != nil {
		return nil, err
	}
	l := &Line{
		tracking: tracking, keys: keys, purpose: purpose, address: e.Address,
		notices: newNotices(keys), ended: make(chan struct{}),
	}
	hearing, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	l.stop = stop
	go l.hear(hearing)
	return l, nil
}

// hear takes in what the server tells, until the line ends.
func (l *Line) hear(ctx context.Context) {
	defer close(l.ended)
	if !l.Tells() {
		<-ctx.Done()
		l.err = l.purpose.Wrap(l.address, context.Cause(ctx))
		return
	}
	l.err = l.purpose.Wrap(l.address, l.tracking.Receive(ctx, l.notices.add))
}

// Tells reports whether the server tells of writes. If it does not, Read is all that
// there is.
func (l *Line) Tells() bool { return l.tracking.Untold() == nil }

// Reason says why the server does not tell of writes, and what to do about it; it is
// nil if it does, and a queue.MissingRightError for lack of a right.
func (l *Line) Reason() error {
	err := l.tracking.Untold()
	if err == nil {
		return nil
	}
	return l.purpose.Explain(l.address, err)
}

// Told blocks until queues were written that Read has read, and returns those that
// were written by now, in any order; nil stands for all. An error says that the
// context is done, or that the line has ended, and why.
func (l *Line) Told(ctx context.Context) ([]string, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.ended:
			return nil, l.err
		case <-l.notices.news:
		}
		if queues, all := l.notices.take(); all || len(queues) > 0 {
			return queues, nil
		}
	}
}

// Forget has nothing told any more of these queues, until they are read again. The
// server itself may remember a queue until the next write to it.
func (l *Line) Forget(queues []string) { l.notices.forget(queues) }

// Close ends the line, and a call of Told.
func (l *Line) Close() error {
	l.stop(errClosed)
	err := l.tracking.Close()
	<-l.ended
	return err
}
