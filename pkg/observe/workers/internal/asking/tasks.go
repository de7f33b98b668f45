package asking

import (
	"fmt"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// maxMadeUp bounds the tasks of one worker that are counted without their names.
const maxMadeUp = 10_000

// Executing says of which queue each task is that a worker executes which serves these
// queues. With an exchange other than the anonymous one the worker's own queues tell, if
// they do; a task of no queue that can be told is left out.
func Executing(tasks []monitor.ActiveTask, served []monitor.ServedQueue) []monitor.ExecutingTask {
	executing := make([]monitor.ExecutingTask, 0, len(tasks))
	for _, t := range tasks {
		if name := queueOf(t, served); name != "" {
			executing = append(executing, monitor.ExecutingTask{ID: t.ID, Queue: name, Acknowledged: t.Acknowledged})
		}
	}
	return executing
}

func queueOf(t monitor.ActiveTask, served []monitor.ServedQueue) string {
	if t.Exchange == "" {
		return t.RoutingKey
	}
	if len(served) == 1 {
		return served[0].Name
	}
	for _, q := range served {
		if q.Exchange == t.Exchange && q.RoutingKey == t.RoutingKey {
			return q.Name
		}
	}
	return ""
}

// MadeUp makes up n tasks of a worker that has not told them, as acknowledged ones of one
// queue.
func MadeUp(worker, queue string, n int64) []monitor.ExecutingTask {
	tasks := make([]monitor.ExecutingTask, 0, min(n, maxMadeUp))
	for i := range min(n, maxMadeUp) {
		tasks = append(tasks, monitor.ExecutingTask{ID: fmt.Sprintf("%s %d", worker, i), Queue: queue, Acknowledged: true})
	}
	return tasks
}
