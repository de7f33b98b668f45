package lookout

import (
	"context"
	"log/slog"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// firstPause and lastPause bound the pause before a line is opened again, which
	// doubles.
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	// steadyTime is how long a line must last for the next to be opened as soon as
	// the first was.
	steadyTime = lastPause
)

// loop watches the queues of one broker until its context ends.
type loop struct {
	spec     Spec
	sink     Sink
	recorder Recorder
	post     *post
	log      *slog.Logger

	pause   time.Duration // before the next line is opened; zero for none
	failing bool          // whether no line has been of use since the last one failed
	way     string        // how messages are noticed, as it was last logged
}

// Broker implements perbroker.Loop.
func (l *loop) Broker() queue.BrokerRef { return l.spec.Ref }

// Fingerprint implements perbroker.Loop.
func (l *loop) Fingerprint() string { return l.spec.Fingerprint }

// Begin implements perbroker.Loop.
func (l *loop) Begin() {}

// Ended drops what is recorded of the broker.
func (l *loop) Ended() { l.recorder.Forget(l.spec.Ref) }

// Run implements perbroker.Loop. Nothing is connected while there is nothing to watch.
func (l *loop) Run(ctx context.Context) {
	source, err := l.spec.Open()
	if err != nil {
		l.fail(err)
		<-ctx.Done()
		return
	}
	defer func() {
		if err := source.Close(); err != nil {
			l.log.Warn("Could not close the connections of a lookout", "error", err)
		}
	}()
	for l.sleep(ctx) && l.awaitQueues(ctx) {
		l.keepWatch(ctx, source)
	}
}

// awaitQueues waits until there is something to watch and tells whether ctx still
// goes on.
func (l *loop) awaitQueues(ctx context.Context) bool {
	for len(l.post.current().names) == 0 {
		select {
		case <-ctx.Done():
			return false
		case <-l.post.changed:
		}
	}
	return ctx.Err() == nil
}

// sleep waits for the pause and tells whether ctx still goes on.
func (l *loop) sleep(ctx context.Context) bool {
	timer := time.NewTimer(l.pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// keepWatch opens a line and watches on it for as long as it is of use and there is
// something to watch.
func (l *loop) keepWatch(ctx context.Context, source Source) {
	started := time.Now()
	line, err := source.Open(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.recorder.Read(l.spec.Ref, 0, time.Since(started), err)
			l.fail(err)
		}
		return
	}
	opened := time.Now()
	l.announce(line)
	err = newShift(l, line).run(ctx)
	if time.Since(opened) >= steadyTime {
		l.pause = 0
	}
	if err != nil && ctx.Err() == nil {
		l.fail(err)
	}
}

// announce tells how messages will be noticed, and logs it where that is news.
func (l *loop) announce(line Line) {
	telling, reason := line.Tells(), line.Reason()
	l.recorder.Lookout(l.spec.Ref, telling, reason)
	l.post.untell(reason)
	way := "told"
	if !telling {
		way = "asked: " + reason.Error()
	}
	if way == l.way {
		return
	}
	l.way = way
	if telling {
		l.log.Info("The broker tells of messages for sleeping targets as they arrive")
		return
	}
	l.log.Info("Queues of sleeping targets are read again and again, since the broker does not tell of messages",
		"reason", reason, "interval", l.spec.Interval)
}

// fail reports that there is no line. It is logged when it begins: metrics count the
// attempts.
func (l *loop) fail(err error) {
	if !l.failing {
		l.log.Warn("Queues of sleeping targets cannot be watched; messages are noticed with the next sample", "error", err)
	}
	l.failing = true
	l.pause = min(max(2*l.pause, firstPause), lastPause)
}

// succeed reports that a line is of use.
func (l *loop) succeed() {
	if l.failing {
		l.log.Info("Queues of sleeping targets are watched again")
	}
	l.failing = false
}
