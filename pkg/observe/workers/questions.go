package workers

import (
	"fmt"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

const (
	// refresh is after how long queues and slots are asked for again: both can be
	// changed by remote control.
	refresh = time.Minute
	// firstRetry and lastRetry bound the pause before a worker is asked again that
	// has not answered, which doubles. One of the solo pool cannot answer while it
	// executes, one that has remote control switched off never does.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// maxAsked bounds the workers that one message asks.
	maxAsked = 200
	// maxMadeUp bounds the tasks of one worker that are counted without their names.
	maxMadeUp = 10_000
)

// questions are what remote control should ask a worker, by when it may be asked.
type questions struct {
	from    map[monitor.Method]time.Time
	pending map[monitor.Method]bool
	misses  int
}

func newQuestions() questions {
	q := questions{from: map[monitor.Method]time.Time{}, pending: map[monitor.Method]bool{}}
	q.want(monitor.MethodActiveQueues)
	q.want(monitor.MethodStats)
	return q
}

// want asks as soon as may be.
func (q *questions) want(m monitor.Method) { q.pending[m] = true }

// drop asks no more.
func (q *questions) drop(m monitor.Method) { q.pending[m] = false }

// due returns the names of workers to ask a question, at most maxAsked, those that
// have waited longest first.
func (b *book) due(m monitor.Method, now time.Time) []string {
	var found []*entry
	for _, e := range b.workers {
		if e.pending[m] && !now.Before(e.from[m]) && !e.Offline() && !e.Silent(now) && !b.isAmbiguous(e, now) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(x, y *entry) int { return x.from[m].Compare(y.from[m]) })
	nodes := make([]string, 0, min(len(found), maxAsked))
	for _, e := range found[:min(len(found), maxAsked)] {
		nodes = append(nodes, e.Node)
	}
	return nodes
}

// isAmbiguous reports whether another live worker has the name of this one: whose
// answer one gets could not be told.
func (b *book) isAmbiguous(e *entry, now time.Time) bool {
	return slices.ContainsFunc(b.hosts[e.Host], func(other *entry) bool {
		return other != e && other.Node == e.Node && !other.Offline() && !other.Silent(now)
	})
}

// learn takes in the answers to a question, and that there was none from the other
// workers that were asked.
func (b *book) learn(m monitor.Method, asked []string, replies []monitor.ControlReply, now time.Time) {
	answers := make(map[string]monitor.ControlReply, len(replies))
	for _, r := range replies {
		answers[r.Node] = r
	}
	wanted := make(map[string]bool, len(asked))
	for _, node := range asked {
		wanted[node] = true
	}
	for _, e := range b.workers {
		if !wanted[e.Node] {
			continue
		}
		if reply, ok := answers[e.Node]; ok && e.apply(m, reply) == nil {
			e.answered(m, now)
			continue
		}
		e.missed(m, now)
	}
}

// apply takes in one answer. What cannot be understood is as no answer.
func (e *entry) apply(m monitor.Method, reply monitor.ControlReply) error {
	switch m {
	case monitor.MethodActive:
		tasks, err := reply.Active()
		if err != nil {
			return err
		}
		e.Tasks = e.executing(tasks)
	case monitor.MethodActiveQueues:
		queues, err := reply.Queues()
		if err != nil {
			return err
		}
		e.Queues = queues
	case monitor.MethodStats:
		slots, err := reply.Slots()
		if err != nil {
			return err
		}
		e.Slots = celery.Number{N: slots, Known: true}
	}
	return nil
}

func (e *entry) answered(m monitor.Method, now time.Time) {
	e.misses = 0
	if m == monitor.MethodActive {
		e.drop(m)
		e.from[m] = now
		return
	}
	e.from[m] = now.Add(refresh)
}

func (e *entry) missed(m monitor.Method, now time.Time) {
	pause := firstRetry << min(e.misses, 5)
	e.misses++
	e.from[m] = now.Add(min(pause, lastRetry))
}

// executing says of which queue each task is. With an exchange other than the
// anonymous one the worker's own queues tell, if they do; a task of no queue that
// can be told is left out, and counts for the worker alone.
func (e *entry) executing(tasks []monitor.ActiveTask) []monitor.ExecutingTask {
	executing := make([]monitor.ExecutingTask, 0, len(tasks))
	for _, t := range tasks {
		if name := e.queueOf(t); name != "" {
			executing = append(executing, monitor.ExecutingTask{ID: t.ID, Queue: name, Acknowledged: t.Acknowledged})
		}
	}
	return executing
}

func (e *entry) queueOf(t monitor.ActiveTask) string {
	if t.Exchange == "" {
		return t.RoutingKey
	}
	if len(e.Queues) == 1 {
		return e.Queues[0].Name
	}
	for _, q := range e.Queues {
		if q.Exchange == t.Exchange && q.RoutingKey == t.RoutingKey {
			return q.Name
		}
	}
	return ""
}

// untold makes up the tasks of a worker that was not asked, or does not answer, but
// that is declared to serve one queue and to acknowledge early: those that execute
// are all of that queue, and the broker has forgotten them.
func (e *entry) untold() []monitor.ExecutingTask {
	if e.Queues != nil || e.declared.AcksLate || len(e.declared.Queues) != 1 {
		return nil
	}
	tasks := make([]monitor.ExecutingTask, 0, min(e.Active.N, maxMadeUp))
	for i := range min(e.Active.N, maxMadeUp) {
		tasks = append(tasks, monitor.ExecutingTask{
			ID: fmt.Sprintf("%s %d %d", e.Node, e.PID.N, i), Queue: e.declared.Queues[0], Acknowledged: true,
		})
	}
	return tasks
}
