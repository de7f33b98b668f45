package eventually

import (
	"errors"
	"testing"
	"time"
)

// The pause after an attempt is as long as the attempt took, within these limits: what runs
// a command again and again leaves the processor to what is awaited.
const (
	shortestPause = 20 * time.Millisecond
	longestPause  = 200 * time.Millisecond
)

// Succeeds blocks until an attempt returns nil. After its patience the test ends with what
// was awaited and the error of the last attempt. There is one attempt at least. They are
// made one after another by the caller's goroutine, so that they may end the test as well.
func Succeeds(t testing.TB, patience time.Duration, what string, attempt func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		began := time.Now()
		err := attempt()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
		time.Sleep(min(max(time.Since(began), shortestPause), longestPause))
	}
}

// Holds is Succeeds for a condition that has no more to say than what is awaited.
func Holds(t testing.TB, patience time.Duration, what string, condition func() bool) {
	t.Helper()
	Succeeds(t, patience, what, func() error {
		if condition() {
			return nil
		}
		return errors.New("it is not so")
	})
}
