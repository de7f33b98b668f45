package eventually_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failureOf is why a wait fails its test, if it does.
func failureOf(t *testing.T, wait func(testing.TB)) string {
	r, ended := &recorder{TB: t}, make(chan struct{})
	go func() {
		defer close(ended)
		wait(r)
	}()
	<-ended
	return r.failure
}

func TestWaiting(t *testing.T) {
	const second = time.Second
	for name, tt := range map[string]struct {
		each, patience time.Duration // each attempt takes that long
		succeeds       int           // the attempt that does
		made           int
		all            time.Duration
		failure        string
	}{
		"at once":                 {0, second, 1, 1, 0, ""},
		"20 ms after an attempt":  {0, second, 4, 4, 60 * time.Millisecond, ""},
		"as long as it took":      {second / 20, second, 3, 3, second / 4, ""},
		"200 ms at the most":      {second, 9 * second, 3, 3, 3400 * time.Millisecond, ""},
		"one that takes too long": {9 * second, second, 1, 1, 9 * second, ""},
		"in vain":                 {0, second / 20, 9, 4, 60 * time.Millisecond, "not within 50ms: the moon: attempt 4"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, made := time.Now(), 0
				failure := failureOf(t, func(t testing.TB) {
					eventually.Succeeds(t, tt.patience, "the moon", func() error {
						time.Sleep(tt.each)
						if made++; made == tt.succeeds {
							return nil
						}
						return fmt.Errorf("attempt %d", made)
					})
				})
				if all := time.Since(began); made != tt.made || all != tt.all || failure != tt.failure {
					t.Errorf("%d attempts in %s, %q; want %d in %s, %q", made, all, failure, tt.made, tt.all, tt.failure)
				}
			})
		})
	}
}

func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for holds, want := range map[bool]string{true: "", false: "not within 1s: the sun: it is not so"} {
			got := failureOf(t, func(t testing.TB) {
				eventually.Holds(t, time.Second, "the sun", func() bool { return holds })
			})
			if got != want {
				t.Errorf("a condition that is %t: %q, want %q", holds, got, want)
			}
		}
	})
}
