package workers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// firstPause and lastPause bound the pause before listening is tried again,
	// which doubles.
	firstPause = 200 * time.Millisecond
	lastPause  = 2 * time.Second
	// askInterval is how often it is looked whether anybody is to be asked.
	askInterval = 500 * time.Millisecond
	// refusedPause is the pause after remote control could not be used.
	refusedPause = 30 * time.Second
	// sweepInterval is how often workers are forgotten that are gone.
	sweepInterval = 2 * time.Second
)

// Source hears and asks the workers of one broker. Listen and Ask may be called at
// the same time.
type Source interface {
	// Listen calls listening as soon as every event will be heard, then heard for
	// each, one at a time, with an error for one that cannot be understood. It
	// blocks until ctx is done or events can no longer be heard.
	Listen(ctx context.Context, listening func(), heard func(monitor.WorkerEvent, error)) error
	// Ask asks the workers of these names and returns the answers that came before
	// all had answered or ctx was done.
	Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error)
	// Close is called once, after the last call of the others has returned.
	Close() error
}

// Recorder is told of each event, with an error if it could not be understood, and
// when a broker's workers are heard no more.
type Recorder interface {
	Heard(ref queue.BrokerRef, err error)
	Deaf(ref queue.BrokerRef)
}

// Spec says how the workers of one broker are heard.
type Spec struct {
	Ref queue.BrokerRef
	// Control allows to ask workers by remote control.
	Control bool
	// Declared is what the configuration says of the workers on a host, asked where
	// they have not told by remote control themselves. It is called with the store
	// locked: it must not call it. Nil where nothing is declared.
	Declared func(host string) Declaration
	// Fingerprint changes whenever anything about the broker does.
	Fingerprint string
	// Open makes a source. It does no I/O. There may be three at a time: one to hear
	// and to ask by the way, and two to ask at once, which are used for nothing else.
	Open func() (Source, error)
}

// loop hears and asks the workers of one broker until its context ends.
type loop struct {
	spec     Spec
	store    *Store
	recorder Recorder
	pods     Pods
	log      *slog.Logger
	puzzled  bool // whether an event that cannot be understood was logged already
	refused  bool // whether the last question could not be asked
	desks    *asking.Desks
}

// Broker implements perbroker.Loop.
func (l *loop) Broker() queue.BrokerRef { return l.spec.Ref }

// Fingerprint implements perbroker.Loop.
func (l *loop) Fingerprint() string { return l.spec.Fingerprint }

// Begin makes the broker known as one whose workers are not heard yet.
func (l *loop) Begin() {
	if l.spec.Control {
		l.desks = asking.NewDesks(func() (asking.Line, error) { return l.spec.Open() })
	}
	l.store.declare(l.spec, l.desks)
}

// Ended drops what is known of the broker's workers.
func (l *loop) Ended() {
	l.store.forget(l.spec.Ref)
	l.recorder.Deaf(l.spec.Ref)
}

// Run implements perbroker.Loop.
func (l *loop) Run(ctx context.Context) {
	source, err := l.spec.Open()
	if err != nil {
		l.setDeaf(err)
		<-ctx.Done()
		return
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { l.listen(ctx, source) })
	tasks.Go(func() { l.ask(ctx, source) })
	tasks.Go(func() { l.sweep(ctx) })
	if l.desks != nil {
		tasks.Go(func() { l.desks.Run(ctx) })
	}
	tasks.Wait()
	if err := source.Close(); err != nil {
		l.log.Warn("Could not close the connections for hearing workers", "error", err)
	}
}

// listen hears until ctx is done, and tries again when it cannot.
func (l *loop) listen(ctx context.Context, source Source) {
	pause, failing := firstPause, false
	for {
		err := source.Listen(ctx, func() {
			l.store.edit(l.spec.Ref, func(b *shelf) {
				b.deaf = nil
				b.resume()
			})
			if failing {
				l.log.Info("The workers' heartbeats are heard again")
			}
			pause, failing = firstPause, false
		}, l.heard)
		if ctx.Err() != nil {
			return
		}
		l.setDeaf(err)
		if !failing {
			l.log.Warn("The workers' heartbeats cannot be heard; workers count as busy until they can", "error", err)
		}
		failing = true
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

func (l *loop) setDeaf(err error) {
	l.store.edit(l.spec.Ref, func(b *shelf) { b.deaf = err })
}

// heard takes in one event. Of those that cannot be understood the first is logged,
// which the metrics go on to count.
func (l *loop) heard(e monitor.WorkerEvent, err error) {
	l.recorder.Heard(l.spec.Ref, err)
	if err == nil {
		l.store.edit(l.spec.Ref, func(b *shelf) { b.hear(e, time.Now()) })
		return
	}
	if !l.puzzled {
		l.log.Warn("A worker's event could not be understood; further ones are counted alone", "error", err)
	}
	l.puzzled = true
}

// ask asks what the heartbeats leave open, until ctx is done.
func (l *loop) ask(ctx context.Context, source Source) {
	if !l.spec.Control {
		l.setMute(errors.New("it is switched off (workers.remoteControl)"))
		return
	}
	pause := askInterval
	for sleep(ctx, pause) {
		pause = askInterval
		if err := l.askAll(ctx, source); err != nil && ctx.Err() == nil {
			l.refuse(err)
			pause = refusedPause
		}
	}
}

// askAll asks each question that is open. Queues come first: they tell whose the
// tasks are.
func (l *loop) askAll(ctx context.Context, source Source) error {
	for _, m := range []monitor.Method{monitor.MethodActiveQueues, monitor.MethodStats, monitor.MethodActive} {
		nodes := l.store.due(l.spec.Ref, m, time.Now())
		if len(nodes) == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, asking.AnswerTime)
		replies, err := source.Ask(bounded, m, nodes)
		cancel()
		if err != nil {
			return err
		}
		l.refused = false
		l.store.edit(l.spec.Ref, func(b *shelf) {
			b.mute = nil
			b.learn(m, nodes, replies, time.Now())
		})
	}
	return nil
}

func (l *loop) setMute(err error) {
	l.store.edit(l.spec.Ref, func(b *shelf) { b.mute = err })
}

func (l *loop) refuse(err error) {
	l.setMute(err)
	if !l.refused {
		l.log.Warn("Workers cannot be asked by remote control; slots, and which tasks execute, are unknown", "error", err)
	}
	l.refused = true
}

func (l *loop) sweep(ctx context.Context) {
	for sleep(ctx, sweepInterval) {
		l.store.edit(l.spec.Ref, func(b *shelf) {
			b.sweep(time.Now(), func(host string) (has, known bool) { return l.pods(l.spec.Ref.Namespace, host) })
		})
	}
}

// sleep waits for d and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
