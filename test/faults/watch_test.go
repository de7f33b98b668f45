package faults_test

import (
	"context"
	"sync"
	"testing"
	"time"
)

// watch asks for the tasks of a queue without a pause and keeps every answer.
type watch struct {
	stop    context.CancelFunc
	asking  sync.WaitGroup
	ask     func() timed
	answers []timed
}

// timed is an answer with the time at which it was asked for.
type timed struct {
	answer
	asked time.Time
}

// watchTasks begins to ask.
func (p *program) watchTasks(t *testing.T, queue string) *watch {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &watch{stop: stop, ask: func() timed {
		asked := time.Now()
		return timed{p.tasks(queue), asked}
	}}
	t.Cleanup(func() {
		stop()
		w.asking.Wait()
	})
	w.asking.Go(func() {
		for ctx.Err() == nil {
			w.answers = append(w.answers, w.ask())
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return w
}

// end stops asking and returns every answer; the last one is asked for now.
func (w *watch) end() []timed {
	w.stop()
	w.asking.Wait()
	return append(w.answers, w.ask())
}

// checkOnly fails the test for every answer that is neither the value nor an
// error of the code 503: a zero above all.
func checkOnly(t *testing.T, answers []timed, queue, value string) {
	t.Helper()
	for _, a := range answers {
		if !a.is(queue, value) && !a.says(503) {
			t.Errorf("an answer was %s, want %s or 503", a, value)
		}
	}
}

// checkAges fails the test for every value that was too old when it was asked
// for. A timestamp is in whole seconds, rounded down.
func checkAges(t *testing.T, answers []timed, maxAge time.Duration) {
	t.Helper()
	for _, a := range answers {
		if age := a.asked.Sub(a.Oldest); a.Code == 200 && age >= maxAge+time.Second {
			t.Errorf("an answer's value was %s old, maximum age %s", age, maxAge)
		}
	}
}

// checkOrder fails the test unless there were values first, then errors, and no
// value any more.
func checkOrder(t *testing.T, answers []timed) {
	t.Helper()
	changes := 0
	for i := 1; i < len(answers); i++ {
		if answers[i].Code != answers[i-1].Code {
			changes++
		}
	}
	if changes != 1 || answers[0].Code != 200 {
		t.Errorf("%d answers, the first %s, changed %d times between value and error, want once", len(answers), answers[0], changes)
	}
}
