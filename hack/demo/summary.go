package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// summary is what a burst came to.
type summary struct {
	sent        int
	at          playground.Sent
	last        playground.Status
	allFinished time.Time
	history     []playground.Change // of the whole playground
}

// see takes in the status at the given time.
func (s *summary) see(status playground.Status, now time.Time) {
	if status.Finished >= s.sent && s.allFinished.IsZero() {
		s.allFinished = now
	}
}

// since are the changes since the first message was sent.
func (s summary) since() []playground.Change {
	for i, c := range s.history {
		if c.At.After(s.at.First) {
			return s.history[i:]
		}
	}
	return nil
}

// woke is the first change to more than zero, or the zero Change.
func (s summary) woke() playground.Change {
	for _, c := range s.since() {
		if c.Replicas > 0 {
			return c
		}
	}
	return playground.Change{}
}

// grown is the first change to as many as there were at the most.
func (s summary) grown() playground.Change {
	var most playground.Change
	for _, c := range s.since() {
		if c.Replicas > most.Replicas {
			most = c
		}
	}
	return most
}

// slept is the last change, or the zero Change.
func (s summary) slept() playground.Change {
	if changes := s.since(); len(changes) > 0 {
		return changes[len(changes)-1]
	}
	return playground.Change{}
}

// zeros counts how often the workers went to zero.
func (s summary) zeros() int {
	n := 0
	for _, c := range s.since() {
		if c.Replicas == 0 {
			n++
		}
	}
	return n
}

// verdict returns an error unless everything went as promised.
func (s summary) verdict() error {
	switch {
	case s.last.Finished != s.sent || s.last.Started != s.sent:
		return fmt.Errorf("of %d tasks %d were started and %d finished", s.sent, s.last.Started, s.last.Finished)
	case s.last.Killed > 0:
		return fmt.Errorf("%d workers were killed", s.last.Killed)
	case s.grown().Replicas < 2:
		return errors.New("the workers never became more than one")
	case s.zeros() != 1 || s.slept().Replicas != 0:
		return fmt.Errorf("the workers went to zero %d times, want once, at the end", s.zeros())
	}
	return nil
}

// String is the summary as people read it. Times are from the moment at which the
// first message was sent.
func (s summary) String() string {
	return strings.Join([]string{
		"Summary",
		fmt.Sprintf("  tasks finished        %d of %d", s.last.Finished, s.sent),
		fmt.Sprintf("  workers killed        %d", s.last.Killed),
		fmt.Sprintf("  woken                 after %s: from the first message to a Deployment of more than zero, as a watch sees it", s.after(s.woke().At, time.Millisecond)),
		fmt.Sprintf("  as many as it takes   after %s: %d workers", s.after(s.grown().At, time.Millisecond), s.grown().Replicas),
		fmt.Sprintf("  all tasks finished    after %s", s.after(s.allFinished, time.Second)),
		fmt.Sprintf("  back to zero          after %s", s.after(s.slept().At, time.Second)),
	}, "\n")
}

func (s summary) after(at time.Time, to time.Duration) time.Duration {
	return at.Sub(s.at.First).Round(to)
}

// table shows a status a line.
type table struct {
	out   io.Writer
	began time.Time
}

func newTable(out io.Writer) table {
	fmt.Fprintln(out, "   time   backlog   in flight   workers wanted   ready   tasks finished")
	return table{out: out, began: time.Now()}
}

func (t table) row(s playground.Status) {
	fmt.Fprintf(t.out, "%6.0fs  %8d  %10d  %15d  %6d  %8d  %s\n",
		time.Since(t.began).Seconds(), s.Backlog, s.InFlight, s.Wanted, s.Ready, s.Finished, strings.Repeat("■", int(s.Ready)))
}
