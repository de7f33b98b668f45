package simulation_test

import (
	"fmt"
	"slices"
	"time"
)

// worker is a Celery worker: the main process of a pod.
type worker struct {
	w         *world
	pod       *pod
	draining  bool // was told to shut down
	dead      bool
	fetching  []*task // popped, but in neither place
	reserved  []*task
	executing []*task
	processed int
	popping   bool
}

// startWorker begins to consume. Not every pod is ready by then.
func startWorker(w *world, p *pod) *worker {
	k := &worker{w: w, pod: p}
	w.say("worker %s is up", p.name)
	k.beat(false)
	w.after(w.between(0, 2*time.Second), k.heartbeats)
	if w.plan.redis {
		w.after(w.between(0, 10*time.Second), k.restores)
	}
	k.pump()
	return k
}

// heartbeats sends them each 2 s. A worker of the solo pool says nothing while it
// executes, and one of the usual pool nothing more once it shuts down.
func (k *worker) heartbeats() {
	if k.dead || k.draining {
		return
	}
	if !k.w.plan.solo || len(k.executing) == 0 {
		k.beat(false)
	}
	k.w.after(2*time.Second, k.heartbeats)
}

// beat tells all replicas, with the faults of each.
func (k *worker) beat(offline bool) {
	b := beat{host: k.pod.name, active: len(k.executing), processed: k.processed, offline: offline}
	for _, r := range k.w.replicas {
		if k.w.chance(k.w.faults().lostBeat) {
			k.w.marks[lostBeats]++
			continue
		}
		life := r.life
		k.w.after(k.w.broker.pausedFor()+k.w.mostly(time.Millisecond, 20*time.Millisecond, 2*time.Second), func() {
			if r.life == life {
				r.hear(b)
			}
		})
	}
}

// restores is the loop of kombu that puts back what nobody has acknowledged in time.
func (k *worker) restores() {
	if k.dead || k.draining {
		return
	}
	k.w.broker.restoreOverdue()
	k.w.after(10*time.Second, k.restores)
}

// room tells whether the worker may take one more. A message that is held for its ETA
// does not count.
func (k *worker) room() bool {
	n := len(k.fetching)
	for _, t := range k.reserved {
		if t.eta <= k.w.now {
			n++
		}
	}
	if k.w.plan.late {
		n += len(k.executing)
	}
	return n < k.w.plan.concurrency*k.w.plan.prefetch
}

// pump takes the next message, if there is one and room for it.
func (k *worker) pump() {
	if k.popping || k.dead || k.draining || len(k.w.broker.list) == 0 || !k.room() {
		return
	}
	k.popping = true
	k.w.after(k.w.broker.pausedFor()+k.w.between(100*time.Microsecond, 2*time.Millisecond), k.take)
}

func (k *worker) take() {
	k.popping = false
	if k.dead || k.draining || k.w.broker.isPaused() || !k.room() {
		k.pump()
		return
	}
	t := k.w.broker.pop()
	if t == nil {
		return
	}
	k.fetching = append(k.fetching, t)
	t.place = gap
	transfer := k.w.mostly(100*time.Microsecond, time.Millisecond, 3*time.Millisecond)
	if !k.w.plan.redis { // the broker itself knows at once who has it
		k.w.broker.hold(t)
	}
	k.w.after(transfer, func() { k.arrive(t) })
	k.pump()
}

// arrive is when a message has reached the worker.
func (k *worker) arrive(t *task) {
	if k.dead {
		return
	}
	k.fetching = slices.DeleteFunc(k.fetching, func(other *task) bool { return other == t })
	if k.w.plan.redis {
		k.w.broker.hold(t)
	}
	k.reserved = append(k.reserved, t)
	k.w.say("worker %s holds task %d", k.pod.name, t.id)
	if t.eta > k.w.now {
		k.w.marks[heldForETA]++
		k.w.after(t.eta-k.w.now, func() {
			if !k.draining {
				k.begin()
			}
		})
	}
	if k.draining { // it was popped before: it is executed, if there is a process for it
		k.begin()
		k.leave()
		return
	}
	k.w.after(k.w.mostly(0, time.Millisecond, 20*time.Millisecond), func() {
		if !k.draining {
			k.begin()
		}
	})
	k.pump()
}

// begin executes what is reserved, as far as there are processes for it.
func (k *worker) begin() {
	for i := 0; i < len(k.reserved) && !k.dead && len(k.executing) < k.w.plan.concurrency; {
		t := k.reserved[i]
		if t.eta > k.w.now {
			i++
			continue
		}
		k.reserved = slices.Delete(k.reserved, i, i+1)
		k.execute(t)
	}
	k.pump()
}

func (k *worker) execute(t *task) {
	if !k.w.plan.late {
		k.w.broker.ack(t)
	}
	t.place, t.beganAt = executing, k.w.now
	k.executing = append(k.executing, t)
	k.processed++
	k.w.say("worker %s executes task %d", k.pod.name, t.id)
	k.w.after(t.length, func() { k.finish(t) })
}

func (k *worker) finish(t *task) {
	i := slices.Index(k.executing, t)
	if k.dead || i < 0 {
		return
	}
	k.executing = slices.Delete(k.executing, i, i+1)
	k.w.broker.ack(t)
	k.w.broker.finish(t)
	k.w.say("task %d is finished", t.id)
	if k.draining {
		k.leave()
		return
	}
	k.begin()
}

// terminate begins a warm shutdown: nothing more is taken, what executes is finished.
func (k *worker) terminate() {
	if k.dead || k.draining {
		return
	}
	k.draining = true
	k.w.say("worker %s shuts down (%s)", k.pod.name, k)
	k.beat(true)
	k.w.after(k.w.plan.grace, k.kill)
	k.w.after(5*time.Millisecond, k.leave) // what was popped already still arrives
}

// leave ends a worker that executes nothing any more: the rest goes back to the queue.
func (k *worker) leave() {
	if k.dead || len(k.executing) > 0 || len(k.fetching) > 0 {
		return
	}
	for _, t := range slices.Clone(k.reserved) {
		k.w.broker.restore(t)
	}
	k.reserved = nil
	k.dead = true
	k.w.after(k.w.between(0, 2*time.Second), func() { k.w.cluster.ended(k.pod) })
}

// kill is SIGKILL.
func (k *worker) kill() {
	if k.dead {
		return
	}
	k.dead = true
	if len(k.executing)+len(k.reserved)+len(k.fetching) > 0 {
		k.w.say("worker %s is killed (%s)", k.pod.name, k)
	}
	for _, t := range k.executing {
		k.w.judge.killed(k, t)
		if k.w.plan.late {
			k.w.broker.abandon(t)
		} else {
			k.w.broker.lose(t)
		}
	}
	for _, t := range k.reserved {
		k.w.broker.abandon(t)
	}
	for _, t := range k.fetching {
		if k.w.plan.redis {
			k.w.judge.killed(k, t)
			k.w.broker.lose(t)
		} else {
			k.w.broker.abandon(t)
		}
	}
	k.w.cluster.ended(k.pod)
}

// String says what it has to do.
func (k *worker) String() string {
	return fmt.Sprintf("%d execute, %d reserved, %d arrive", len(k.executing), len(k.reserved), len(k.fetching))
}
