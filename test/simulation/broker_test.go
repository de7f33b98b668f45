package simulation_test

import (
	"slices"
	"time"
)

// place is where a task is.
type place int

const (
	coming    place = iota // not published yet
	waiting                // in the list
	gap                    // on its way from the list to a worker, in neither place
	held                   // reserved by a worker, or held for its ETA
	executing              // by a worker
	limbo                  // unacknowledged, and its worker is dead
	done
	lost
)

// task is one message and what it asks for.
type task struct {
	id     int
	length time.Duration
	eta    moment // 0 for at once
	place  place
	// pickedUp is when a worker got it, as the broker has noted.
	pickedUp moment
	beganAt  moment // to execute
	pushedAt moment // into the list
}

func (t *task) isOpen() bool { return t.place != done && t.place != lost }

// broker holds one queue: Redis with lists and unacked, or RabbitMQ.
type broker struct {
	w       *world
	list    []*task // the next one first
	unacked []*task
	tasks   []*task
	pushes  int    // messages that were put into the list
	open    int    // tasks that are neither done nor lost
	paused  moment // it answers nobody until then
	tick    census // what a quorum queue has counted last
}

// census is what a count of messages has seen.
type census struct {
	at            moment
	ready, held   int
	scheduled     int
	heldTasks     []*task
	readyTasks    []*task
	isUnscheduled bool // how many are scheduled is not told
}

func newBroker(w *world) *broker {
	b := &broker{w: w}
	if w.plan.quorum {
		b.count()
	}
	return b
}

// count has a quorum queue count, each 5 s.
func (b *broker) count() {
	b.tick = b.census()
	b.w.after(5*time.Second, b.count)
}

// census counts at this moment.
func (b *broker) census() census {
	c := census{
		at: b.w.now, ready: len(b.list), held: len(b.unacked),
		heldTasks: slices.Clone(b.unacked), readyTasks: slices.Clone(b.list), isUnscheduled: !b.w.plan.redis,
	}
	for _, t := range b.unacked {
		if t.eta > b.w.now {
			c.scheduled++
		}
	}
	return c
}

// listed is what the management API says: of a quorum queue what that has counted last.
func (b *broker) listed() census {
	if b.w.plan.quorum {
		return b.tick
	}
	return b.census()
}

// isPaused tells whether it answers nobody.
func (b *broker) isPaused() bool { return b.paused > b.w.now }

// pausedFor is how long it will be until it answers.
func (b *broker) pausedFor() time.Duration { return max(0, b.paused-b.w.now) }

// publish adds a new message. A broker that pauses takes it later.
func (b *broker) publish(t *task) {
	if b.isPaused() {
		b.w.after(b.pausedFor(), func() { b.publish(t) })
		return
	}
	b.w.say("task %d is published (%s, ETA %s)", t.id, t.length, t.eta)
	b.push(t)
}

// push puts a message into the list, and tells those who wait for it.
func (b *broker) push(t *task) {
	t.place, t.pushedAt = waiting, b.w.now
	b.list = append(b.list, t)
	b.pushes++
	for _, r := range b.w.replicas {
		r.lookout.written()
	}
	b.pump()
}

// pump has workers look whether there is something to take.
func (b *broker) pump() {
	for _, p := range b.w.cluster.pods {
		if p.worker != nil {
			p.worker.pump()
		}
	}
}

// pop takes the next message, nil if there is none.
func (b *broker) pop() *task {
	if len(b.list) == 0 {
		return nil
	}
	t := b.list[0]
	b.list = slices.Delete(b.list, 0, 1)
	return t
}

// hold notes that a worker has a message.
func (b *broker) hold(t *task) {
	t.place, t.pickedUp = held, b.w.now
	b.unacked = append(b.unacked, t)
}

// ack forgets a message that a worker has.
func (b *broker) ack(t *task) {
	if i := slices.Index(b.unacked, t); i >= 0 {
		b.unacked = slices.Delete(b.unacked, i, i+1)
	}
}

// restore puts a message that was held back into the list.
func (b *broker) restore(t *task) {
	b.ack(t)
	b.w.say("task %d is back in the queue", t.id)
	b.push(t)
}

// finish notes that a task is done.
func (b *broker) finish(t *task) {
	t.place = done
	b.open--
}

// lose notes that a task is lost for good.
func (b *broker) lose(t *task) {
	t.place = lost
	b.open--
	b.w.marks[tasksLost]++
}

// abandon is what becomes of a message whose worker was killed: RabbitMQ has it back as
// the connection dies, Redis when its visibility timeout is over, by a worker that lives.
func (b *broker) abandon(t *task) {
	t.place = limbo
	if b.w.plan.redis {
		return
	}
	b.w.after(b.w.between(0, 50*time.Millisecond), func() {
		if t.place == limbo {
			b.restore(t)
		}
	})
}

// restoreOverdue is what a worker of Redis does now and then.
func (b *broker) restoreOverdue() {
	for _, t := range slices.Clone(b.unacked) {
		if t.place == limbo && b.w.now-t.pickedUp > b.w.plan.visibility {
			b.w.marks[restores]++
			b.restore(t)
		}
	}
}
