package brokersfile

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

// pollInterval is the time from one look at the files to the next. A change is
// taken over when two looks have found the same: within two intervals.
const pollInterval = time.Second

// Watcher keeps the brokers of a brokers file up to date. Make it with New. Its
// methods are safe for concurrent use; Run is called once.
type Watcher struct {
	loader *loader
	log    *slog.Logger

	current  atomic.Pointer[state]
	last     reading // what the last look found, in use or not
	reported string  // the text of the error that was logged last
}

// state is what is in use, and how well that went. It is not changed once it is
// current.
type state struct {
	brokers []brokers.Broker
	success time.Time
	err     error
}

// reading is what one look at the files found.
type reading struct {
	brokers []brokers.Broker
	err     error
}

// New reads the brokers file at path and what its brokers refer to. A mistake in
// the brokers file itself is an error, which lists all of them. What is wrong
// with a file that a broker refers to is that broker's Err and is logged.
func New(path string, log *slog.Logger) (*Watcher, error) {
	l, err := newLoader(path)
	if err != nil {
		return nil, err
	}
	found, err := l.load()
	if err != nil {
		return nil, err
	}
	w := &Watcher{loader: l, log: log, last: reading{brokers: found}}
	w.current.Store(&state{})
	w.takeOver(w.last)
	return w, nil
}

// Brokers returns the brokers that are in use, in the order of the file.
func (w *Watcher) Brokers() []brokers.Broker { return w.current.Load().brokers }

// Status returns when the brokers file and everything that it refers to were last
// read without an error, changed or not, and the error of the last reading. The
// time is zero if that has not been yet. An error means that something that was
// good before is in use in place of what the files say now, or that a broker has
// its Err set. It shows no credential.
func (w *Watcher) Status() (lastSuccess time.Time, err error) {
	s := w.current.Load()
	return s.success, s.err
}

// Run looks at the files once a second and calls onChange with all brokers, in
// the order of the file, whenever one of them was added, removed or changed since
// New. A broker whose files are bad stays as it was or, where it never was good,
// has its Err set. A mistake in the brokers file leaves all brokers as they were.
// Either is logged, once until it changes.
//
// Run blocks until ctx is done and then returns nil. onChange is called from the
// goroutine of Run; no look is taken until it returns.
func (w *Watcher) Run(ctx context.Context, onChange func([]brokers.Broker)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if w.look() {
			onChange(w.Brokers())
		}
	}
}

// look reads the files and reports whether the brokers in use have changed. What
// is found is taken over only when the look before has found the same, so that a
// file that is being written is not taken for a shorter one.
func (w *Watcher) look() bool {
	all, err := w.loader.load()
	found := reading{brokers: all, err: err}
	settled := found.equal(w.last)
	w.last = found
	return settled && w.takeOver(found)
}

// takeOver puts to use what is good of r, and reports whether that has changed
// the brokers in use.
func (w *Watcher) takeOver(r reading) bool {
	before := w.current.Load()
	after := state{brokers: before.brokers, success: before.success, err: r.err}
	if r.err == nil {
		after.brokers, after.err = brokers.KeepGood(before.brokers, r.brokers), errorsOf(r.brokers)
	}
	if after.err == nil {
		after.success = time.Now()
	}
	w.current.Store(&after)
	w.report(after.err)
	return !brokers.Equal(before.brokers, after.brokers)
}

// errorsOf joins what is wrong with brokers.
func errorsOf(found []brokers.Broker) error {
	var errs []error
	for _, b := range found {
		errs = append(errs, b.Err)
	}
	return errors.Join(errs...)
}

// errorText is the text of err, empty without one.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// report logs err if it is another than last time, and that all is well again.
func (w *Watcher) report(err error) {
	text := errorText(err)
	if text == w.reported {
		return
	}
	w.reported = text
	if err == nil {
		w.log.Info("Brokers file is good again", "file", w.loader.path)
		return
	}
	w.log.Error("Brokers file or a file that it refers to is bad: what was good before stays in use", "file", w.loader.path, "error", err)
}

// equal tells whether r and other found the same.
func (r reading) equal(other reading) bool {
	return errorText(r.err) == errorText(other.err) && brokers.Equal(r.brokers, other.brokers)
}
