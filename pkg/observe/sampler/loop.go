package sampler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// jitter spreads the turns of many brokers, and of many replicas at one
	// broker, over time: each pause is up to this share shorter.
	jitter = 0.1
	// maxPause bounds the pause between attempts at a broker that fails, so that
	// its return is noticed soon. An interval above it is kept to.
	maxPause = 2 * time.Second
	// restPause is the pause where seldom samples do, unless the Spec says another.
	restPause = 5 * time.Second
	// overdue is how long past its interval and time-out a turn may be before
	// the loop counts as hanging. It allows for a machine that is short of CPU.
	overdue = 30 * time.Second
)

// Broker is asked for samples. Sample reads every queue at once; it is called
// by one goroutine at a time and must return when ctx is done. Close is called
// once, after the last Sample.
type Broker interface {
	Sample(ctx context.Context) (*queue.Sample, error)
	Close() error
}

// Recorder is told how long each turn took and how it ended, and when a broker
// is sampled no more.
type Recorder interface {
	Sampled(ref queue.BrokerRef, took time.Duration, err error)
	Forget(ref queue.BrokerRef)
}

// Spec says how one broker is sampled.
type Spec struct {
	// Declaration is what the store is told of the broker.
	snapshot.Declaration
	// Interval is the time from the start of one turn to the start of the next.
	Interval time.Duration
	// Timeout bounds one turn.
	Timeout time.Duration
	// Rest is asked before the pause after each turn that succeeded. Where it returns
	// true, RestInterval takes the place of Interval. It must not block. Nil stands
	// for never.
	Rest func() bool
	// RestInterval is not heeded if it is shorter than Interval. Zero stands for 5 s,
	// or half of MaxAge if that is less.
	RestInterval time.Duration
	// Sampled is called after each turn, successful or not, when the store has what
	// it gave. It must not block. Nil if nobody is to be told.
	Sampled func()
	// Fingerprint changes whenever anything about the broker does: the loop is
	// then replaced by a new one.
	Fingerprint string
	// Open makes the broker's driver. It does no I/O. If it fails, the broker
	// is reported as failing with that error until its fingerprint changes.
	Open func() (Broker, error)
}

// loop samples one broker until its context ends.
type loop struct {
	spec     Spec
	store    *snapshot.Store
	recorder Recorder
	running  *sync.Map // of the group: where the loop is found by its broker
	log      *slog.Logger
	demand   *demand

	lastTurn atomic.Int64 // Unix nanoseconds of the last turn's start
	failing  bool         // whether the last turn failed
	degraded bool         // whether the last sample lacked a part
	pause    time.Duration
}

// Run samples until ctx is done. It blocks.
func (l *loop) Run(ctx context.Context) {
	defer close(l.demand.ended)
	broker, err := l.spec.Open()
	if err != nil {
		l.idle(ctx, err)
		return
	}
	defer func() {
		if err := broker.Close(); err != nil {
			l.log.Warn("Could not close the connections of a broker", "error", err)
		}
	}()
	for {
		started := time.Now()
		l.lastTurn.Store(started.UnixNano())
		current := l.demand.begin()
		err := l.sample(ctx, broker, started)
		if ctx.Err() != nil {
			return
		}
		l.told(current, err)
		if !l.sleep(ctx, l.pause-time.Since(started)) {
			return
		}
	}
}

// idle keeps a loop alive that has nothing to sample, for the given reason.
func (l *loop) idle(ctx context.Context, reason error) {
	l.fail(reason, time.Now())
	for {
		l.lastTurn.Store(time.Now().UnixNano())
		l.told(l.demand.begin(), reason)
		if !l.sleep(ctx, l.spec.Interval) {
			return
		}
	}
}

// told tells those who wait for it that a turn has ended.
func (l *loop) told(ended *turn, err error) {
	ended.end(err)
	if l.spec.Sampled != nil {
		l.spec.Sampled()
	}
}

// sample takes one sample and sets the pause until the next turn.
func (l *loop) sample(ctx context.Context, broker Broker, started time.Time) error {
	turnCtx, cancel := context.WithTimeout(ctx, l.spec.Timeout)
	defer cancel()
	sample, err := broker.Sample(turnCtx)
	if ctx.Err() != nil {
		return ctx.Err() // stopped: what the turn gave is of no interest, nor is its failure
	}
	l.recorder.Sampled(l.spec.Ref, time.Since(started), err)
	if err != nil {
		l.fail(err, time.Now())
		return err
	}
	l.store.Put(l.spec.Ref, sample)
	if l.failing {
		l.log.Info("Broker is answering again")
	}
	l.failing = false
	l.reportDegraded(sample.Degraded)
	l.pause = jittered(l.usualPause())
	return nil
}

// usualPause is that of a broker that answers.
func (l *loop) usualPause() time.Duration {
	if l.spec.Rest != nil && l.spec.Rest() {
		return l.rest()
	}
	return l.spec.Interval
}

// rest is the pause where seldom samples do. By itself it leaves counts young enough.
func (l *loop) rest() time.Duration {
	if l.spec.RestInterval > 0 {
		return max(l.spec.Interval, l.spec.RestInterval)
	}
	return max(l.spec.Interval, min(restPause, l.spec.MaxAge/2))
}

// reportDegraded logs when a part of the broker can no longer be read, and when
// it can again.
func (l *loop) reportDegraded(err error) {
	switch {
	case err != nil && !l.degraded:
		l.log.Warn("Part of the broker could not be read; the counts that depend on it are unknown", "error", err)
	case err == nil && l.degraded:
		l.log.Info("The whole broker can be read again")
	}
	l.degraded = err != nil
}

// fail reports a failure. It is logged when it begins, not at each turn: the
// metrics count the turns.
func (l *loop) fail(err error, at time.Time) {
	l.store.Fail(l.spec.Ref, err, at)
	if !l.failing {
		l.log.Warn("Broker could not be sampled; its last counts are served until they reach the maximum age", "error", err)
		l.pause = l.spec.Interval
	}
	l.failing = true
	l.pause = jittered(min(2*l.pause, max(maxPause, l.spec.Interval)))
}

// alive returns an error if the loop has not begun a turn for longer than its
// schedule allows.
func (l *loop) alive(now time.Time) error {
	since := now.Sub(time.Unix(0, l.lastTurn.Load()))
	if limit := l.longestPause() + l.spec.Timeout + overdue; since > limit {
		return fmt.Errorf("the sampling loop of broker %s has not begun a turn for %s (limit %s)",
			l.spec.Ref, since.Round(time.Second), limit)
	}
	return nil
}

func (l *loop) longestPause() time.Duration {
	if l.spec.Rest == nil {
		return max(l.spec.Interval, maxPause)
	}
	return max(l.rest(), maxPause)
}

// jittered shortens d by up to the jitter's share.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*jitter*float64(d))
}

// sleep waits for d, not at all if d is negative, and no longer than until a turn is
// wanted. It tells whether ctx still goes on.
func (l *loop) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-l.demand.now:
	case <-timer.C:
	}
	return ctx.Err() == nil
}
