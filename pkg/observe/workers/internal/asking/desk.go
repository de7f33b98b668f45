package asking

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// keepLine is for how long a line is kept that is not used.
const keepLine = time.Minute

// ErrClosed says that nobody is asked any more: the broker is gone or was changed, or
// the program ends.
var ErrClosed = errors.New("the broker's workers are not asked any more")

// Line asks workers, one question at a time.
type Line interface {
	// Ask asks the workers of these names and returns the answers that came before
	// all had answered or ctx was done.
	Ask(ctx context.Context, method monitor.Method, nodes []string) ([]monitor.ControlReply, error)
	Close() error
}

// Desks ask workers of one broker at once what they execute, for whoever comes. They
// have lines of their own, so that nobody waits for other questions than these. There
// are two: workers that have not answered before are asked at one, so that nobody waits
// for them who asks others. Their methods are safe for concurrent use.
type Desks struct{ prompt, slow *desk }

// Told is what workers execute, by their names.
type Told map[string][]monitor.ActiveTask

// NewDesks makes desks, which do nothing until Run. Open makes a line and does no I/O.
func NewDesks(open func() (Line, error)) *Desks { return &Desks{newDesk(open), newDesk(open)} }

// Run asks until ctx is done. It is called once.
func (d *Desks) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { d.prompt.run(ctx) })
	running.Go(func() { d.slow.run(ctx) })
	running.Wait()
}

// Ask asks these workers, the slow ones beside the others, and blocks until they have
// answered, AnswerTime after they were asked at the latest, which may have to wait for as
// long. It returns what those execute that have answered in a way that can be understood.
// That somebody has not, or could not be asked before ctx was done, is no error. An error
// means that a question could not be put, or the answers not be read; answers to the
// other are returned with it.
func (d *Desks) Ask(ctx context.Context, prompt, slow []string) (Told, error) {
	var asking sync.WaitGroup
	var first, second outcome
	asking.Go(func() { first = d.prompt.ask(ctx, prompt) })
	asking.Go(func() { second = d.slow.ask(ctx, slow) })
	asking.Wait()
	told := make(Told, len(prompt)+len(slow))
	maps.Copy(told, first.told)
	maps.Copy(told, second.told)
	return told, errors.Join(first.err, second.err)
}

// desk puts one question at a time; those who come meanwhile share the next.
type desk struct {
	open   func() (Line, error)
	calls  chan call
	closed chan struct{}
	line   Line // of run alone, nil while there is none
}

// call is somebody who waits. Done has room for the outcome.
type call struct {
	nodes []string
	done  chan outcome
}

// outcome is what a question came to. What was told is not to be changed.
type outcome struct {
	told Told
	err  error
}

func newDesk(open func() (Line, error)) *desk {
	return &desk{open: open, calls: make(chan call), closed: make(chan struct{})}
}

func (d *desk) run(ctx context.Context) {
	defer close(d.closed)
	defer d.hangUp()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.idle():
			d.hangUp()
		case first := <-d.calls:
			d.serve(ctx, append(d.waiting(), first))
		}
	}
}

// ask has a question put, and waits for the outcome.
func (d *desk) ask(ctx context.Context, nodes []string) outcome {
	if len(nodes) == 0 {
		return outcome{}
	}
	c := call{nodes: nodes, done: make(chan outcome, 1)}
	select {
	case d.calls <- c:
	case <-d.closed:
		return outcome{err: ErrClosed}
	case <-ctx.Done():
		return outcome{}
	}
	select {
	case o := <-c.done:
		return o
	case <-ctx.Done():
		return outcome{}
	}
}

// waiting takes all who wait now.
func (d *desk) waiting() []call {
	var calls []call
	for {
		select {
		case c := <-d.calls:
			calls = append(calls, c)
		default:
			return calls
		}
	}
}

// serve puts one question for several.
func (d *desk) serve(ctx context.Context, calls []call) {
	var nodes []string
	for _, c := range calls {
		nodes = append(nodes, c.nodes...)
	}
	slices.Sort(nodes)
	told, err := d.put(ctx, slices.Compact(nodes))
	for _, c := range calls {
		c.done <- outcome{told, err}
	}
}

// put puts a question, in as many messages as it takes.
func (d *desk) put(ctx context.Context, nodes []string) (Told, error) {
	if d.line == nil {
		line, err := d.open()
		if err != nil {
			return nil, err
		}
		d.line = line
	}
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	told := make(Told, len(nodes))
	for some := range slices.Chunk(nodes, MaxAsked) {
		if ctx.Err() != nil {
			break // those before were waited for in vain
		}
		replies, err := d.line.Ask(ctx, monitor.MethodActive, some)
		if err != nil {
			return nil, err
		}
		for _, r := range replies {
			if tasks, err := r.Active(); err == nil { // else it has not told
				told[r.Node] = tasks
			}
		}
	}
	return told, nil
}

// idle is when the line has not been used for long; never without one.
func (d *desk) idle() <-chan time.Time {
	if d.line == nil {
		return nil
	}
	return time.After(keepLine)
}

// hangUp closes the line. It is used no more, even if that fails.
func (d *desk) hangUp() {
	if d.line != nil {
		_ = d.line.Close()
		d.line = nil
	}
}
