package monitor

// ExecutingTask is a task that a worker was last heard to execute, with the queue
// that it came from.
type ExecutingTask struct {
	// ID is the task's, not the message's delivery tag.
	ID string
	// Queue is the name of the queue; empty if nobody knows it.
	Queue string
	// Acknowledged tells whether the broker had forgotten the message when the
	// worker was asked (early acknowledgement). It may have done so since.
	Acknowledged bool
}
