package simulation_test

import (
	"math/rand/v2"
	"slices"
	"time"
)

// plan is what a schedule is made of.
type plan struct {
	// The broker: Redis or RabbitMQ, which has classic or quorum queues. telling is
	// whether Redis tells of messages.
	redis, quorum, telling bool
	visibility             time.Duration
	// The workers.
	late, solo            bool
	concurrency, prefetch int
	grace                 time.Duration
	startLeast, startMost time.Duration
	// The HPA, as it is now.
	spec          spec
	hpaPeriod     time.Duration
	stabilization time.Duration
	busyMetric    bool
	// celery-hpa.
	replicas int
	webhook  bool
	maxAge   time.Duration
	// faults are what goes wrong until healAt.
	trouble faults
	healAt  moment
}

// faults are probabilities, of each occasion.
type faults struct {
	lostBeat, badSample, halfSample, lostNotice        float64
	lostRequest, lostAnswer, slowWrite, staleCache     float64
	lostAdmission, slowAnswer                          float64
	kills, cuts, pauses, stalls, people, deaths, snaps bool
	strands                                            bool
}

// faults are those of now.
func (w *world) faults() faults {
	if w.healed {
		return faults{}
	}
	return w.plan.trouble
}

// newPlan draws one.
func newPlan(rng *rand.Rand) plan {
	coin := func(p float64) bool { return rng.Float64() < p }
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(rng.Int64N(int64(most-least)+1))
	}
	p := plan{
		redis: coin(0.6), visibility: between(20*time.Second, 40*time.Second),
		late: coin(0.5), solo: coin(0.2), concurrency: 1 + rng.IntN(4), prefetch: 1 + rng.IntN(3),
		grace: between(2*time.Second, 20*time.Second), startLeast: 500 * time.Millisecond,
		hpaPeriod: 15 * time.Second, stabilization: between(0, 10*time.Second), busyMetric: coin(0.5),
		replicas: 1 + rng.IntN(3), webhook: coin(0.75), maxAge: between(3*time.Second, 10*time.Second),
		healAt: between(40*time.Second, 80*time.Second),
	}
	p.spec = spec{least: 1, most: int32(3 + rng.IntN(6)), window: between(2*time.Second, 12*time.Second)}
	p.startMost = between(time.Second, 6*time.Second)
	p.quorum = !p.redis && coin(0.5)
	if p.quorum { // its counts are of the tick before: younger ones there are none
		p.maxAge = max(p.maxAge, quorumTick+3*sampleInterval)
	}
	p.telling = p.redis && coin(0.75)
	if p.solo {
		p.concurrency = 1
	}
	if coin(0.5) {
		p.hpaPeriod = 5 * time.Second
	}
	switch {
	case coin(0.2):
		p.spec.least = 2
	case coin(0.2):
		p.spec.least = 0
	}
	if coin(0.75) {
		p.trouble = newFaults(rng)
	}
	return p
}

// newFaults draws some of the faults: a schedule with all of them is mostly stuck.
func newFaults(rng *rand.Rand) faults {
	maybe := func(p float64) float64 {
		if rng.Float64() < 0.2 {
			return p * rng.Float64()
		}
		return 0
	}
	coin := func() bool { return rng.Float64() < 0.2 }
	return faults{
		lostBeat: maybe(0.5), badSample: maybe(0.3), halfSample: maybe(0.5), lostNotice: maybe(0.6), slowAnswer: maybe(0.5),
		lostRequest: maybe(0.3), lostAnswer: maybe(0.4), slowWrite: maybe(0.5), staleCache: maybe(0.6),
		lostAdmission: maybe(0.4),
		kills:         coin(), cuts: coin(), pauses: coin(), stalls: coin(), people: coin(), deaths: coin(), snaps: coin(), strands: coin(),
	}
}

// newWorld makes all that there is, from a seed.
func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x5eed)), epoch: epoch()}
	w.plan = newPlan(w.rng)
	w.judge = &judge{w: w}
	w.lease = &lease{w: w}
	w.broker = &broker{w: w}
	w.cluster = &cluster{w: w}
	return w
}

// begin sets the world going.
func (w *world) begin() {
	replicas := int32(w.rng.IntN(3))
	w.say("the plan: %+v", w.plan)
	w.broker = newBroker(w)
	for i := range w.plan.replicas {
		r := newReplica(w, string(rune('A'+i)))
		w.replicas = append(w.replicas, r)
		w.after(w.between(0, time.Second), func() { w.lease.contend(r) })
	}
	w.cluster = newCluster(w, replicas)
	w.hpa = startHPA(w)
	w.produce()
	for kind, do := range w.mischief() {
		if kind.on {
			w.again(kind.least, kind.most, do)
		}
	}
	w.after(w.plan.healAt, w.heal)
}

// again has something happen now and then, until all is healed.
func (w *world) again(least, most time.Duration, do func()) {
	w.after(w.between(least, most), func() {
		if !w.healed {
			do()
			w.again(least, most, do)
		}
	})
}

// kind is how often a fault happens, if it does.
type kind struct {
	on          bool
	least, most time.Duration
}

// mischief is the faults that happen by themselves, in a fixed order.
func (w *world) mischief() func(yield func(kind, func()) bool) {
	f := w.plan.trouble
	return func(yield func(kind, func()) bool) {
		_ = yield(kind{f.kills, 2 * time.Second, 40 * time.Second}, w.killReplica) &&
			yield(kind{f.cuts, 5 * time.Second, 40 * time.Second}, w.cut) &&
			yield(kind{f.pauses, 5 * time.Second, 40 * time.Second}, w.pauseBroker) &&
			yield(kind{f.stalls, 2 * time.Second, 20 * time.Second}, w.stall) &&
			yield(kind{f.people, 2 * time.Second, 30 * time.Second}, w.interfere) &&
			yield(kind{f.deaths, 5 * time.Second, 40 * time.Second}, w.killPod) &&
			yield(kind{f.strands, 500 * time.Millisecond, 10 * time.Second}, w.strand) &&
			yield(kind{f.snaps, time.Second, 20 * time.Second}, w.snapLine)
	}
}

func (w *world) someReplica() *replica { return w.replicas[w.rng.IntN(len(w.replicas))] }

// killReplica ends a replica, the one that leads more often, and starts it again.
func (w *world) killReplica() {
	r := w.someReplica()
	if w.chance(0.5) && w.lease.holder != nil {
		r = w.lease.holder
	}
	w.restart(r)
}

// mayKill ends a replica in the middle of what it is about to do, if it is to be.
func (w *world) mayKill(r *replica) {
	if life := r.life; w.faults().kills && w.chance(0.15) {
		w.after(w.mostly(0, 5*time.Millisecond, 500*time.Millisecond), func() {
			if r.life == life {
				w.restart(r)
			}
		})
	}
}

// restart ends a replica, and starts it again later.
func (w *world) restart(r *replica) {
	if !r.alive {
		return
	}
	w.marks[replicaKills]++
	if r.leads() {
		w.marks[leaderKills]++
	}
	if r.busy { // nothing else waits there
		w.marks[killsInCalls]++
	}
	if w.chance(0.3) {
		w.lease.release(r)
	}
	r.kill()
	w.after(w.between(500*time.Millisecond, 5*time.Second), func() {
		if !r.alive {
			r.start()
		}
	})
}

// cut cuts a replica off from the broker, or from the API server, or both. A cut that
// lasts longer goes on.
func (w *world) cut() {
	r, d := w.someReplica(), w.between(100*time.Millisecond, 16*time.Second)
	which := w.rng.IntN(3)
	if which != 0 {
		w.marks[brokerCuts]++
		r.hurtBy = max(r.hurtBy, w.now+d)
		r.lookout.snap(d)
	}
	if which != 1 {
		w.marks[apiCuts]++
		r.apiBy = max(r.apiBy, w.now+d)
	}
	w.say("%s is cut off for %s (%d)", r.name, d, which)
}

func (w *world) pauseBroker() {
	w.marks[brokerPauses]++
	w.broker.paused = max(w.broker.paused, w.now+w.between(50*time.Millisecond, 6*time.Second))
	w.say("the broker pauses until %s", w.broker.paused)
}

// stall has a whole process stand still.
func (w *world) stall() {
	if r := w.someReplica(); r.stalled <= w.now {
		r.stall(w.mostly(10*time.Millisecond, 4*time.Second, 10*time.Second))
	}
}

func (r *replica) stall(d time.Duration) {
	r.w.marks[stalls]++
	r.stalled = r.w.now + d
	r.w.say("%s stands still until %s", r.name, r.stalled)
}

// mayStall has a replica stand still in the middle of what it is about to do.
func (w *world) mayStall(r *replica) {
	if w.faults().stalls && r.stalled <= w.now && w.chance(0.1) {
		r.stall(w.between(0, 12*time.Second))
	}
}

// killPod is a node that fails.
func (w *world) killPod() {
	if len(w.cluster.pods) == 0 {
		return
	}
	w.fail(w.cluster.pods[w.rng.IntN(len(w.cluster.pods))])
}

// strand has somebody scale to zero over messages that workers hold, and the nodes fail.
func (w *world) strand() {
	isHeld := false
	for _, p := range w.cluster.pods {
		isHeld = isHeld || p.worker != nil && len(p.worker.reserved)+len(p.worker.executing) > 0
	}
	if !isHeld || len(w.broker.list) > 0 || w.cluster.size.replicas == 0 {
		return
	}
	w.somebodyScales(0)
	w.after(50*time.Millisecond, func() {
		for _, p := range slices.Clone(w.cluster.pods) {
			w.fail(p)
		}
	})
}

// fail is the end of a node.
func (w *world) fail(p *pod) {
	if p.worker == nil {
		return
	}
	w.marks[podDeaths]++
	w.say("the node of %s fails", p.name)
	p.zeroLook = nil
	p.worker.kill()
}

func (w *world) snapLine() {
	w.someReplica().lookout.snap(w.between(10*time.Millisecond, 5*time.Second))
}

// heal begins the time without new faults. Those that there are end by themselves.
func (w *world) heal() {
	w.say("all is well from now on")
	w.healed = true
	for _, r := range w.replicas {
		if !r.alive {
			r.start()
		}
	}
	w.edit(func(s *spec) { s.paused = false })
	w.judge.healedAt = w.now
}

// send publishes a new task.
func (w *world) send() {
	if w.healed {
		return
	}
	t := &task{id: len(w.broker.tasks) + 1, length: w.length()}
	if w.chance(0.05) {
		t.eta = w.now + w.between(time.Second, 12*time.Second)
	}
	w.broker.tasks = append(w.broker.tasks, t)
	w.broker.open++
	w.marks[tasks]++
	w.broker.publish(t)
}

// length is that of a task: mostly short, sometimes longer than the grace period.
func (w *world) length() time.Duration {
	if w.chance(0.2) {
		return w.between(w.plan.grace/2, 15*time.Second+w.plan.grace/2)
	}
	return w.mostly(time.Millisecond, time.Second, 5*time.Second)
}

// produce sends tasks in bursts, trickles and one by one, with long silences.
func (w *world) produce() {
	silence := w.plan.spec.window + w.between(0, 15*time.Second)
	w.again(silence/4, silence*2, func() {
		switch w.rng.IntN(4) {
		case 0, 1:
			w.send()
		case 2:
			for range 1 + w.rng.IntN(20) {
				w.after(w.between(0, time.Second), w.send)
			}
		case 3:
			for range 1 + w.rng.IntN(8) {
				w.after(w.between(0, 10*time.Second), w.send)
			}
		}
	})
}

// temptation is what is worst when somebody is about to go to zero, or just has: tasks
// that arrive, and whatever else the schedule has of faults.
func (w *world) temptation(p float64) {
	for range 2 {
		if w.chance(p) {
			w.after(w.mostly(0, 20*time.Millisecond, time.Second), w.send)
		}
	}
	if w.chance(p) {
		w.after(w.between(200*time.Millisecond, 400*time.Millisecond), w.send)
	}
	f := w.plan.trouble
	w.soon(p, w.hpa.look)
	if f.deaths {
		w.soon(p, w.killPod)
	}
	if f.people {
		w.soon(3*p, func() { w.somebodyScales(int32(w.rng.IntN(3))) })
	}
	if f.stalls {
		w.soon(p, w.stall)
	}
}

// soon has something happen, with that probability, unless all is healed by then.
func (w *world) soon(p float64, do func()) {
	if w.chance(p) {
		w.after(w.mostly(0, 50*time.Millisecond, 600*time.Millisecond), func() {
			if !w.healed {
				do()
			}
		})
	}
}
