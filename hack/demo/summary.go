package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// summary is what a burst came to.
type summary struct {
	sent  int
	began time.Time

	last                            playground.Status
	most                            int32 // replicas
	scaledUp, allFinished, backDown time.Time
}

// see takes in the status at the given time.
func (s *summary) see(status playground.Status, now time.Time) {
	s.last = status
	s.most = max(s.most, status.Wanted)
	mark := func(at *time.Time, reached bool) {
		if reached && at.IsZero() {
			*at = now
		}
	}
	mark(&s.scaledUp, status.Wanted > 1)
	mark(&s.allFinished, status.Finished >= s.sent)
	mark(&s.backDown, status.Finished >= s.sent && status.Wanted == 1 && status.Ready == 1)
}

// over tells whether nothing more is to come.
func (s *summary) over() bool { return !s.backDown.IsZero() }

// verdict returns an error unless everything went as promised.
func (s *summary) verdict() error {
	switch {
	case s.last.Finished != s.sent || s.last.Started != s.sent:
		return fmt.Errorf("of %d tasks %d were started and %d finished", s.sent, s.last.Started, s.last.Finished)
	case s.last.Killed > 0:
		return fmt.Errorf("%d workers were killed", s.last.Killed)
	case s.most < 2:
		return fmt.Errorf("the HPA never scaled up")
	}
	return nil
}

// String is the summary as people read it.
func (s summary) String() string {
	after := func(at time.Time) string { return at.Sub(s.began).Round(time.Second).String() }
	return strings.Join([]string{
		"Summary",
		fmt.Sprintf("  tasks finished     %d of %d", s.last.Finished, s.sent),
		fmt.Sprintf("  workers killed     %d", s.last.Killed),
		fmt.Sprintf("  first scale-up     after %s, to %d workers at the most", after(s.scaledUp), s.most),
		fmt.Sprintf("  all tasks finished after %s", after(s.allFinished)),
		fmt.Sprintf("  back to one worker after %s", after(s.backDown)),
	}, "\n")
}

// table shows a status a line.
type table struct{ out io.Writer }

func newTable(out io.Writer) table {
	fmt.Fprintln(out, "   time   backlog   in flight   workers wanted   ready   tasks finished")
	return table{out: out}
}

func (t table) row(elapsed time.Duration, s playground.Status) {
	fmt.Fprintf(t.out, "%6.0fs  %8d  %10d  %15d  %6d  %8d  %s\n",
		elapsed.Seconds(), s.Backlog, s.InFlight, s.Wanted, s.Ready, s.Finished, strings.Repeat("■", int(s.Ready)))
}
