package workers

import (
	"cmp"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/beats"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/pace"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// maxWorkers bounds the workers that are known of one broker. Others are as if
	// they were never heard, which is unknown.
	maxWorkers = 20_000
	// forgetAfter is how long a worker that has gone silent is remembered where it was
	// never known to be in a pod.
	forgetAfter = 10 * time.Minute
)

// identity tells workers apart. Two of one node name and one process number,
// which containers make possible, are taken for one.
type identity struct {
	node string
	pid  celery.Number
}

// book is what is known of the workers of one broker. It is pure: not safe for
// concurrent use, without a clock.
type book struct {
	broker   queue.BrokerRef
	declared func(host string) Declaration
	workers  map[identity]*entry
	hosts    map[string][]*entry
	services *pace.Services
}

// entry is a worker with what only the book needs to know of it.
type entry struct {
	Worker
	processed celery.Number
	hadPod    bool // whether it was ever in a pod
	succeeded bool // whether another process has begun under its name since it was heard
	recent    beats.Recent
	declared  Declaration
	share     pace.Share
	evasive   bool      // whether it did not answer when it was last asked at once
	toldAllAt time.Time // by when it had told all that it executed, its queues' tasks included
	asking.Questions
}

func newBook(broker queue.BrokerRef, declared func(host string) Declaration) *book {
	if declared == nil {
		declared = func(string) Declaration { return Declaration{} }
	}
	return &book{broker: broker, declared: declared, workers: map[identity]*entry{}, hosts: map[string][]*entry{}, services: pace.NewServices()}
}

// hear takes in what a worker says of itself.
func (b *book) hear(e monitor.WorkerEvent, now time.Time) {
	entry := b.find(e, now)
	if entry == nil {
		return
	}
	switch {
	case e.State == monitor.WorkerOffline:
		entry.OfflineAt = now
	case e.State == monitor.WorkerOnline, entry.isSucceededBy(e):
		b.services.Leave(&entry.share)
		entry.restart()
		b.succeed(entry)
	}
	entry.succeeded = false
	if entry.Queues == nil {
		entry.declared = b.declared(entry.Host)
	}
	before, processed := beats.Beat{At: entry.HeardAt, Active: entry.Active}, entry.processed.N
	entry.count(e, now)
	if !entry.IsAwaited(monitor.MethodActive) {
		entry.toldAllAt = now
	}
	b.account(entry, before, processed, now)
}

// succeed notes that a process has begun. Others of its name, most likely that of the
// same container before, are forgotten if they stay silent.
func (b *book) succeed(by *entry) {
	for _, other := range b.hosts[by.Host] {
		other.succeeded = other.succeeded || other != by && other.Node == by.Node
	}
}

// find returns the worker of an event, a new one if it was not known, and nil if
// there are too many.
func (b *book) find(e monitor.WorkerEvent, now time.Time) *entry {
	id := identity{e.Node, e.PID}
	if known := b.workers[id]; known != nil {
		return known
	}
	if len(b.workers) >= maxWorkers {
		return nil
	}
	made := &entry{Worker: Worker{Broker: b.broker, Node: e.Node, Host: e.Host(), PID: e.PID, Since: now}, toldAllAt: now}
	made.restart()
	b.workers[id] = made
	b.hosts[made.Host] = append(b.hosts[made.Host], made)
	return made
}

// isSucceededBy reports whether an event is of another process than the one that was
// heard before under its name and number: one that has taken fewer tasks.
func (e *entry) isSucceededBy(event monitor.WorkerEvent) bool {
	return e.Offline() && event.Processed.Known && e.processed.Known && event.Processed.N < e.processed.N
}

// restart forgets what only an earlier process can have said.
func (e *entry) restart() {
	e.OfflineAt = time.Time{}
	e.Slots, e.Queues, e.Tasks = celery.Number{}, nil, nil
	e.recent, e.processed, e.Active = nil, celery.Number{}, celery.Number{}
	e.Told, e.ToldAt = 0, time.Time{}
	e.Questions, e.evasive = asking.New(), false
}

// count takes in the numbers of an event.
func (e *entry) count(event monitor.WorkerEvent, now time.Time) {
	if event.Active.Known || e.Frequency == 0 { // else asked for by remote control, with a frequency of its own
		e.Frequency = cmp.Or(event.Frequency, defaultFrequency)
	}
	active := e.recent.Add(beats.Beat{At: now, Active: event.Active}, e.Frequency)
	e.Moved = event.Processed != e.processed && e.processed.Known
	if active != e.Active || event.Processed != e.processed {
		e.Want(monitor.MethodActive)
	}
	if !e.isBehind(active, event.Processed, now) {
		e.Told = 0
	}
	if !mayExecute(active) && e.Told == 0 {
		e.Tasks = nil
		e.Drop(monitor.MethodActive)
	}
	if mayExecute(active) != mayExecute(e.Active) || e.Moved && !mayExecute(active) {
		e.Since = now
	}
	e.Active, e.processed, e.HeardAt = active, event.Processed, now
}

// isBehind reports whether a heartbeat was sent before tasks began that the worker has
// told of: it executes nothing, and has taken none of them yet. One that comes when the
// next was due was sent later: if it still knows of none of them, they had ended, and
// been counted by a heartbeat that overtook the answer.
func (e *entry) isBehind(active, processed celery.Number, now time.Time) bool {
	return e.Told > 0 && now.Sub(e.ToldAt) < e.Frequency &&
		!mayExecute(e.Active) && !mayExecute(active) && processed.Known && processed == e.processed
}

func mayExecute(active celery.Number) bool { return !active.Known || active.N > 0 }

// resume is called after a time in which nothing was heard. A worker that shut down
// may have come back, as each does that has lost its connection: if not, it is silent.
func (b *book) resume() {
	for _, e := range b.workers {
		e.OfflineAt = time.Time{}
	}
}

// sweep forgets workers that are silent because they are gone: whose pod was there and
// is no more, or in which another has begun; and those that have long been silent where
// there never was a pod. HasPod tells of a host.
func (b *book) sweep(now time.Time, hasPod func(host string) (has, known bool)) {
	for id, e := range b.workers {
		has, known := hasPod(e.Host)
		e.hadPod = e.hadPod || has
		if !known || !e.isGone(has, now) {
			continue
		}
		b.services.Leave(&e.share)
		delete(b.workers, id)
		b.hosts[e.Host] = slices.DeleteFunc(b.hosts[e.Host], func(other *entry) bool { return other == e })
		if len(b.hosts[e.Host]) == 0 {
			delete(b.hosts, e.Host)
		}
	}
	b.services.Forget(now)
}

// isGone reports whether a worker is to be forgotten, given whether its host has a pod.
func (e *entry) isGone(hasPod bool, now time.Time) bool {
	switch {
	case !e.Silent(now):
		return false
	case hasPod:
		return e.succeeded
	}
	return e.hadPod || now.Sub(e.HeardAt) > forgetAfter
}

// account adds what a worker has done since its heartbeat before to the services of
// its queues. Of a gap in the heartbeats nothing is known: it adds nothing.
func (b *book) account(e *entry, before beats.Beat, processedBefore int64, now time.Time) {
	done := pace.Work{Active: e.Active.N}
	if !before.At.IsZero() && before.Active.Known && now.Sub(before.At) <= e.patience() {
		done.Busy = time.Duration(float64(before.Active.N+e.Active.N) / 2 * float64(now.Sub(before.At)))
		done.Begun = max(0, e.processed.N-processedBefore)
	}
	b.services.Account(&e.share, e.queueNames(), done, now)
}

// queueNames are the queues that a worker serves, sorted: by what it says itself, or
// by what is declared of it. Those that are of Celery's own making, one of each worker
// with worker_direct for example, are left out.
func (e *entry) queueNames() []string {
	names := make([]string, 0, len(e.Queues))
	for _, q := range e.Queues {
		names = append(names, q.Name)
	}
	if e.Queues == nil {
		names = append(names, e.declared.Queues...)
	}
	names = slices.DeleteFunc(names, celery.IsInternalQueue)
	slices.Sort(names)
	return slices.Compact(names)
}
