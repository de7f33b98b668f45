package procnode

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Kind is what happened to a pod's process.
type Kind string

// What happens to a process, in the order of its life.
const (
	// Start is the start of the process, the first or after an exit.
	Start Kind = "start"
	// SIGTERM is the request to end, sent to the main process alone.
	SIGTERM Kind = "sigterm"
	// SIGKILL is the killing of the process with all its descendants, after the
	// grace period.
	SIGKILL Kind = "sigkill"
	// Exit is the end of the main process, for whatever reason.
	Exit Kind = "exit"
)

// Event is one thing that happened to the process of a pod.
type Event struct {
	Time      time.Time
	Namespace string
	Pod       string
	UID       types.UID
	Kind      Kind
	// PID is the process's id, on this machine.
	PID int
	// ExitCode is set on Exit: the process's own, or 128 plus the number of the
	// signal that ended it.
	ExitCode int
}

// journal keeps events in the order in which they happened and passes them on.
type journal struct {
	notify func(Event)

	mu     sync.Mutex
	events []Event
}

func (j *journal) record(event Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
	if j.notify != nil {
		j.notify(event)
	}
}

func (j *journal) snapshot() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}
