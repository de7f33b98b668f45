package workers

import (
	"fmt"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
)

// due returns the names of workers to ask a question, those that have
// waited longest first, and no more than one message asks.
func (b *book) due(m monitor.Method, now time.Time) []string {
	var found []*entry
	for _, e := range b.workers {
		if e.IsDue(m, now) && e.isLive(now) && !b.isAmbiguous(e, now) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(x, y *entry) int { return x.DueSince(m).Compare(y.DueSince(m)) })
	found = found[:min(len(found), asking.MaxAsked)]
	nodes := make([]string, 0, len(found))
	for _, e := range found {
		nodes = append(nodes, e.Node)
	}
	return nodes
}

// isAmbiguous reports whether another live worker has the name of this one: whose
// answer one gets could not be told.
func (b *book) isAmbiguous(e *entry, now time.Time) bool {
	return slices.ContainsFunc(b.hosts[e.Host], func(other *entry) bool {
		return other != e && other.Node == e.Node && other.isLive(now)
	})
}

// isLive reports whether a worker may be asked.
func (e *entry) isLive(now time.Time) bool { return !e.Offline() && !e.Silent(now) }

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
		if reply, ok := answers[e.Node]; ok && e.apply(m, reply, now) == nil {
			e.Answered(m, now)
			continue
		}
		e.Missed(m, now)
	}
}

// apply takes in one answer. What cannot be understood is as no answer.
func (e *entry) apply(m monitor.Method, reply monitor.ControlReply, now time.Time) error {
	switch m {
	case monitor.MethodActive:
		tasks, err := reply.Active()
		if err != nil {
			return err
		}
		e.told(tasks, now)
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

// told takes in what a worker executes.
func (e *entry) told(tasks []monitor.ActiveTask, now time.Time) {
	e.Tasks, e.Told, e.ToldAt = asking.Executing(tasks, e.Queues), len(tasks), now
	e.toldAllAt = now
}

// untold makes up the tasks of a worker that was not asked, or does not answer, but
// that is declared to serve one queue and to acknowledge early: those that execute
// are all of that queue, and the broker has forgotten them.
func (e *entry) untold() []monitor.ExecutingTask {
	if e.Queues != nil || e.declared.AcksLate || len(e.declared.Queues) != 1 {
		return nil
	}
	return asking.MadeUp(fmt.Sprintf("%s %d", e.Node, e.PID.N), e.declared.Queues[0], e.Active.N)
}
