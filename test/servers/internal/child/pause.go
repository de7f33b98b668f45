package child

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pauseTimeout bounds the wait for threads that have no processor to stop on.
const pauseTimeout = 30 * time.Second

// Pause stops the process where it stands, and returns when every thread of it
// has stopped: on a busy machine others go on for a while after the signal, until
// the one that has to pass it on gets a processor.
func (p *Process) Pause(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGSTOP)
	for deadline := time.Now().Add(pauseTimeout); !p.isPaused(t); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s goes on %s after SIGSTOP", p.name, pauseTimeout)
		}
	}
}

// Resume lets a paused process go on.
func (p *Process) Resume(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGCONT)
}

// isPaused reads the state of each thread: T is stopped (proc(5)).
func (p *Process) isPaused(t testing.TB) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if err != nil || len(threads) == 0 {
		t.Fatalf("look at the threads of %s: %d, %v", p.name, len(threads), err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			return false // it ended in this moment
		}
		stat := string(text)
		if !strings.HasPrefix(stat[strings.LastIndexByte(stat, ')')+1:], " T ") {
			return false
		}
	}
	return true
}
