package groundtruth_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// quiescence is a state in which nothing moves: workers execute as many tasks as
// they can, which wait for a gate, and have reserved as many more as they may.
type quiescence struct {
	setup
	orders  []servers.CeleryTask
	workers []servers.WorkerOptions
	// idle is what waits before there is a worker, busy what is true after that,
	// by queue.
	idle, busy map[string]counts
	// executing counts the tasks that begin before the gate opens.
	executing int64
	// solo is true for workers whose one thread executes: while it does, they
	// reserve nothing, answer nobody, and acknowledge nothing, early or late.
	solo bool
	// first is how many of the tasks, the last that are sent, go before all others.
	first int
}

// A message is in flight exactly as long as it is not acknowledged. With late
// acknowledgement that is what is reserved or executing, so that backlog and in
// flight are all that is sent and not finished; with early acknowledgement what
// is executing is in neither.
func TestNumbersAreTheTruthWhileNothingMoves(t *testing.T) {
	numbersAreTheTruth(t, setup{}, redisQuiescences())
}

// numbersAreTheTruth checks what is true of all brokers, and what is true of one
// kind.
func numbersAreTheTruth(t *testing.T, s setup, ofKind map[string]quiescence) {
	all := quiescences()
	maps.Copy(all, ofKind)
	for name, q := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q.rabbitMQ = s.rabbitMQ
			q.run(t)
		})
	}
}

// hundred tasks are what most workers find.
func hundred() []servers.CeleryTask { return []servers.CeleryTask{{N: 100}} }

// celeryHolds are the numbers of the default queue alone.
func celeryHolds(backlog, inFlight int64) map[string]counts {
	return map[string]counts{"celery": {Backlog: backlog, InFlight: inFlight}}
}

func redisQuiescences() map[string]quiescence {
	return map[string]quiescence{
		"solo, late ack": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(99, 1), executing: 1, solo: true,
			workers: []servers.WorkerOptions{{Pool: "solo", Concurrency: 1, LateAck: true, Prefetch: 4}},
		},
		"solo, early ack: what executes is in flight all the same": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(99, 1), executing: 1, solo: true,
			workers: []servers.WorkerOptions{{Pool: "solo", Concurrency: 1, Prefetch: 4}},
		},
		"priorities under a key prefix": {
			setup:  setup{prefix: "myapp:"},
			orders: []servers.CeleryTask{{N: 30}, {N: 30, Priority: new(3)}, {N: 20, Priority: new(6)}, {N: 20, Priority: new(9)}},
			idle:   celeryHolds(100, 0), busy: celeryHolds(92, 8), executing: 2,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 4}},
		},
	}
}

func quiescences() map[string]quiescence {
	return map[string]quiescence{
		"late ack, prefetch 1": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(98, 2), executing: 2,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 1}},
		},
		"late ack, prefetch 4": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(92, 8), executing: 2,
			workers: []servers.WorkerOptions{{LateAck: true, Prefetch: 4}},
		},
		"early ack, prefetch 4: what executes is not in the broker": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(90, 8), executing: 2,
			workers: []servers.WorkerOptions{{Prefetch: 4}},
		},
		"threads, late ack": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(92, 8), executing: 2,
			workers: []servers.WorkerOptions{{Pool: "threads", LateAck: true, Prefetch: 4}},
		},
		"threads, early ack": {
			orders: hundred(), idle: celeryHolds(100, 0), busy: celeryHolds(90, 8), executing: 2,
			workers: []servers.WorkerOptions{{Pool: "threads", Prefetch: 4}},
		},
		"topic exchange": {
			setup: setup{declared: []servers.CeleryQueue{
				{Name: "video", Exchange: "media", ExchangeType: "topic", RoutingKey: "video.#"},
				{Name: "audio", Exchange: "media", ExchangeType: "topic", RoutingKey: "audio.*"},
			}},
			// A publisher must declare an exchange before it can use it. As a
			// side effect of naming no queue it declares the default one.
			orders: []servers.CeleryTask{
				{N: 10, Queue: "video"},
				{N: 10, Queue: "audio"},
				{N: 40, Exchange: "media", RoutingKey: "video.hd.long"},
				{N: 40, Exchange: "media", RoutingKey: "audio.mono"},
			},
			workers: []servers.WorkerOptions{
				{Name: "v", LateAck: true, Prefetch: 4, Queues: []string{"video"}},
				{Name: "a", LateAck: true, Prefetch: 1, Queues: []string{"audio"}},
			},
			idle:      map[string]counts{"video": {Backlog: 50}, "audio": {Backlog: 50}, "celery": {}},
			busy:      map[string]counts{"video": {42, 8, 0}, "audio": {48, 2, 0}, "celery": {}},
			executing: 4,
		},
		"three queues, two workers": {
			orders: []servers.CeleryTask{{N: 60, Queue: "a"}, {N: 60, Queue: "b"}, {N: 60, Queue: "c"}},
			workers: []servers.WorkerOptions{
				{Name: "one", LateAck: true, Prefetch: 4, Queues: []string{"a"}},
				{Name: "two", Concurrency: 3, LateAck: true, Prefetch: 1, Queues: []string{"b"}},
			},
			idle:      map[string]counts{"a": {Backlog: 60}, "b": {Backlog: 60}, "c": {Backlog: 60}},
			busy:      map[string]counts{"a": {52, 8, 0}, "b": {57, 3, 0}, "c": {60, 0, 0}},
			executing: 5,
		},
	}
}

func (q quiescence) run(t *testing.T) {
	i := install(t, q.setup)
	sent := i.publishGated(t, q.orders)
	i.settlesAt(t, q.idle)

	for _, w := range q.workers {
		i.StartWorker(t, w)
	}
	i.await(t, func() string { return cmp.Diff(progress{Started: q.executing}, i.progress(t)) })
	i.settlesAt(t, q.busy)
	q.agreesWithRecord(t, i, sent)
	q.agreesWithWorkers(t, i)

	i.OpenGate(t, "gate")
	consumed, waiting := q.outcome()
	i.await(t, func() string { return cmp.Diff(progress{consumed, consumed}, i.progress(t)) })
	i.settlesAt(t, waiting)
}

// publishGated sends tasks that wait for the gate named gate.
func (i *installation) publishGated(t *testing.T, orders []servers.CeleryTask) []string {
	t.Helper()
	var sent []string
	for _, order := range orders {
		order.Gate = "gate"
		sent = append(sent, i.Publish(t, order)...)
	}
	return sent
}

// lateAck says whether what executes is unacknowledged. It is the same for all
// workers of a case.
func (q quiescence) lateAck() bool { return q.solo || q.workers[0].LateAck }

func (q quiescence) agreesWithRecord(t *testing.T, i *installation, sent []string) {
	t.Helper()
	did, sum := i.progress(t), total(q.busy)
	gone := did.Finished
	if !q.lateAck() {
		gone = did.Started
	}
	if sum.Backlog+sum.InFlight != int64(len(sent))-gone {
		t.Errorf("%d were sent, the record is %+v, but backlog and in flight are %+v", len(sent), did, sum)
	}
	for _, id := range i.Record(t).Started {
		if q.first > 0 && !slices.Contains(sent[len(sent)-q.first:], id) {
			t.Errorf("task %s has begun before those of the highest priority", id)
		}
	}
}

// agreesWithWorkers compares in flight with what the workers say, who may hear of
// the beginning of a task after it was recorded.
func (q quiescence) agreesWithWorkers(t *testing.T, i *installation) {
	t.Helper()
	if q.solo {
		return
	}
	i.await(t, func() string {
		held := i.Inspect(t, q.nodes()...)
		want := len(held.Reserved) + len(held.Scheduled)
		if q.lateAck() {
			want += len(held.Active)
		}
		return cmp.Diff(int64(want), total(q.busy).InFlight)
	})
}

func (q quiescence) nodes() []string {
	var nodes []string
	for _, w := range q.workers {
		if w.Name == "" {
			w.Name = "worker"
		}
		nodes = append(nodes, "celery@"+w.Name)
	}
	return nodes
}

// outcome is how many tasks finish once the gate is open, and what then is in
// the queues: a queue that no worker consumes stays as it is.
func (q quiescence) outcome() (consumed int64, waiting map[string]counts) {
	waiting = map[string]counts{}
	for name, c := range q.busy {
		if c == q.idle[name] {
			waiting[name] = c
			continue
		}
		waiting[name] = counts{}
		consumed += q.idle[name].Backlog
	}
	return consumed, waiting
}
