package unacked

import (
	"errors"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// errNoQueue says that a task executes of which nobody knows the queue.
var errNoQueue = errors.New("a worker executes it and does not tell the queue that it came from")

// executing is what workers were last heard to execute. With early acknowledgement
// such a task is not in the unacked hash.
type executing struct {
	tasks []monitor.ExecutingTask
	// missing are those of which a listing has no message, by the task's id; nil
	// while nobody executes anything.
	missing map[uuidKey]monitor.ExecutingTask
}

// begin starts a listing.
func (x *executing) begin() {
	if len(x.tasks) == 0 {
		return
	}
	x.missing = make(map[uuidKey]monitor.ExecutingTask, len(x.tasks))
	for _, task := range x.tasks {
		x.missing[keyOf(task.ID)] = task
	}
}

// note takes in that the listing has a message of a task.
func (x *executing) note(task uuidKey) {
	if len(x.missing) > 0 {
		delete(x.missing, task)
	}
}

// Execute says which tasks workers execute, as far as somebody knows, for the rest
// of this sample.
func (h *Holder) Execute(tasks []monitor.ExecutingTask) { h.executing = executing{tasks: tasks} }

// addExecuting counts the tasks that execute and are not in the hash. A listing that
// is a random choice does not tell which these are, so that then those alone count
// that were out of it when the worker was asked.
func (f *InFlight) addExecuting(x executing) {
	for _, task := range x.missing {
		if f.estimated && !task.Acknowledged {
			continue
		}
		if task.Queue == "" {
			f.lose(1, errNoQueue)
			continue
		}
		f.queues[task.Queue] = f.queues[task.Queue].plus(tally{held: 1})
	}
}
