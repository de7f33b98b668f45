package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	terminalInterval = time.Second
	logInterval      = 10 * time.Second
)

// Printer writes the progress of steps, one at a time, to one writer. It is safe
// for concurrent use.
type Printer struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
}

// New returns a Printer that writes to out, which it treats as a terminal if it
// is one. A nil out discards everything.
func New(out io.Writer) *Printer {
	if out == nil {
		out = io.Discard
	}
	return &Printer{out: out, terminal: isTerminal(out)}
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Printf writes one line that belongs to no step. A newline is added.
func (p *Printer) Printf(format string, args ...any) {
	p.write(fmt.Sprintf(format, args...), true)
}

// write shows one line. On a terminal a line that is not final is written over
// by the next one.
func (p *Printer) write(line string, final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.terminal:
		fmt.Fprintln(p.out, line)
	case final:
		fmt.Fprintf(p.out, "\r\033[K%s\n", line)
	default:
		fmt.Fprintf(p.out, "\r\033[K%s", line)
	}
}

// Step is one long operation that is being shown. Its methods are safe for
// concurrent use.
type Step struct {
	printer *Printer
	title   string
	started time.Time
	stop    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex
	detail string
}

// Start shows title at once and keeps showing it with the elapsed time until
// Done is called, which must happen exactly once.
func (p *Printer) Start(title string) *Step {
	s := &Step{
		printer: p, title: title, started: time.Now(),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	p.write(s.line("…"), false)
	go s.show()
	return s
}

// Detail says what the step is doing at the moment. It is shown with the next
// line, not at once.
func (s *Step) Detail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detail = fmt.Sprintf(format, args...)
}

// Done ends the step: it shows the time that it took and whether it failed, and
// returns that time. The error itself is the caller's to report.
func (s *Step) Done(err error) time.Duration {
	close(s.stop)
	<-s.stopped
	took := time.Since(s.started)
	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	s.printer.write(fmt.Sprintf("%s: %s in %s", s.title, outcome, elapsed(took)), true)
	return took
}

func (s *Step) show() {
	defer close(s.stopped)
	interval := logInterval
	if s.printer.terminal {
		interval = terminalInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			s.printer.write(s.line(elapsed(time.Since(s.started))), false)
		}
	}
}

func (s *Step) line(state string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s", s.title, state, s.detail))
}

// elapsed writes a duration as people read a stopwatch.
func elapsed(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}
