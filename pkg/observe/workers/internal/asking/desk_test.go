package asking_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
)

// line stands in for a broker: with it time is the test's own. Everybody answers but
// those who are called mute.
type line struct {
	mu            sync.Mutex
	opened, inUse int
	asked         []int // how many by each message
}

func (l *line) open() (asking.Line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened, l.inUse = l.opened+1, l.inUse+1
	return l, nil
}

func (l *line) Ask(ctx context.Context, _ monitor.Method, nodes []string) ([]monitor.ControlReply, error) {
	l.mu.Lock()
	l.asked = append(l.asked, len(nodes))
	l.mu.Unlock()
	var replies []monitor.ControlReply
	for _, node := range nodes {
		if node == "celery@mute" {
			<-ctx.Done()
			continue
		}
		reply, err := monitor.DecodeControlReply("application/json", "utf-8", "", fmt.Appendf(nil, `{%q: []}`, node))
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
	}
	return replies, nil
}

func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inUse--
	return nil
}

// count is how many lines were opened, and how many of them are not closed.
func (l *line) count() (opened, inUse int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened, l.inUse
}

// run has desks at work while do runs, with a clock of its own.
func run(t *testing.T, open func() (asking.Line, error), do func(t *testing.T, d *asking.Desks)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := asking.NewDesks(open)
		var running sync.WaitGroup
		running.Go(func() { d.Run(ctx) })
		do(t, d)
		cancel()
		running.Wait()
		if _, err := d.Ask(t.Context(), []string{"celery@a"}, nil); !errors.Is(err, asking.ErrClosed) {
			t.Errorf("after the end Ask says %v", err)
		}
	})
}

func TestLinesAreKeptWhileTheyAreUsed(t *testing.T) {
	l := &line{}
	run(t, l.open, func(t *testing.T, d *asking.Desks) {
		for range 3 {
			if told, err := d.Ask(t.Context(), []string{"celery@a"}, nil); err != nil || len(told) != 1 {
				t.Errorf("told %v, %v", told, err)
			}
			time.Sleep(59 * time.Second)
		}
		if opened, inUse := l.count(); opened != 1 || inUse != 1 {
			t.Errorf("asked each 59 s, %d lines were opened, %d are in use, want one", opened, inUse)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, inUse := l.count(); inUse != 0 {
			t.Error("a line is kept that is not used")
		}
		_, _ = d.Ask(t.Context(), []string{"celery@a"}, []string{"celery@b"})
		if opened, inUse := l.count(); opened != 3 || inUse != 2 {
			t.Errorf("%d lines were opened, %d are in use, want one more for each desk", opened, inUse)
		}
	})
	if _, inUse := l.count(); inUse != 0 {
		t.Errorf("%d lines are left open", inUse)
	}
}

func TestManyWorkersAreAskedBySeveralMessages(t *testing.T) {
	nodes := []string{"celery@same"}
	for i := range 2*asking.MaxAsked + 9 {
		nodes = append(nodes, fmt.Sprintf("celery@%03d", i))
	}
	nodes = append(nodes, "celery@same")
	l := &line{}
	run(t, l.open, func(t *testing.T, d *asking.Desks) {
		told, err := d.Ask(t.Context(), nodes, nil)
		if err != nil || len(told) != len(nodes)-1 || fmt.Sprint(l.asked) != "[200 200 10]" {
			t.Errorf("%d have told, %v; asked were %v", len(told), err, l.asked)
		}
	})
}

func TestNobodyIsAskedWhenTheTimeIsOver(t *testing.T) {
	nodes := []string{"celery@mute"}
	for i := range asking.MaxAsked {
		nodes = append(nodes, fmt.Sprintf("celery@n%03d", i)) // behind the mute one
	}
	l := &line{}
	run(t, l.open, func(t *testing.T, d *asking.Desks) {
		start := time.Now()
		told, err := d.Ask(t.Context(), nodes, nil)
		if err != nil || len(told) != asking.MaxAsked-1 || len(l.asked) != 1 || time.Since(start) != asking.AnswerTime {
			t.Errorf("%d have told after %s, %v; asked were %v", len(told), time.Since(start), err, l.asked)
		}
	})
}

func TestLineThatCannotBeOpenedIsAnError(t *testing.T) {
	tries := 0
	refuse := func() (asking.Line, error) {
		tries++
		return nil, errors.New("no such file")
	}
	run(t, refuse, func(t *testing.T, d *asking.Desks) {
		for range 2 {
			if _, err := d.Ask(t.Context(), []string{"celery@a"}, nil); err == nil || err.Error() != "no such file" {
				t.Errorf("Ask says %v", err)
			}
		}
	})
	if tries != 2 {
		t.Errorf("tried %d times, want each time", tries)
	}
}
