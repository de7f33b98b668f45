package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// sampleInterval and restInterval are the times from one sample to the next, awake
	// and asleep; sampleTimeout bounds one (pkg/api/v1alpha1).
	sampleInterval = time.Second
	restInterval   = 5 * time.Second
	sampleTimeout  = 2 * time.Second
	// deafTime is how long it takes at the most to read what a lost notice would have told.
	deafTime = restInterval + time.Second
	// answerTime is for how long an answer of a worker is waited (pkg/observe/workers).
	answerTime = time.Second
	// pollInterval is how often queues are read where nobody tells of messages.
	pollInterval = 50 * time.Millisecond
	// quorumTick is how often a quorum queue counts.
	quorumTick = 5 * time.Second
)

var (
	errNoAnswer = errors.New("the broker does not answer")
	// errHalf does not fail a sample: it is only for who wants a fresh one.
	errHalf = errors.New("a part of the broker could not be read")
)

// sampler samples the broker for one process, as package sampler does.
type sampler struct {
	r         *replica
	life      int
	running   bool
	wanted    bool          // a turn, at once
	lastAt    moment        // when the last turn ended
	isFailing bool          // as of the last turn, or before the first
	waiters   []func(error) // for the end of the next turn
	ticket    int
}

// isGone tells whether the process has ended.
func (s *sampler) isGone() bool { return s.r.life != s.life }

// next plans the next turn.
func (s *sampler) next(d time.Duration) {
	s.ticket++
	ticket := s.ticket
	s.r.w.after(d, func() {
		if ticket == s.ticket {
			s.due()
		}
	})
}

// hurry has the next turn begin now.
func (s *sampler) hurry() {
	s.wanted = true
	if !s.running {
		s.next(0)
	}
}

// fresh calls back after a turn that has not begun yet.
func (s *sampler) fresh(done func(error)) {
	s.waiters = append(s.waiters, done)
	s.hurry()
}

// due takes a turn.
func (s *sampler) due() {
	w := s.r.w
	if s.isGone() || s.running {
		return
	}
	if d := s.r.stalled - w.now; d > 0 {
		s.next(d)
		return
	}
	s.running, s.wanted = true, false
	waiters, began := s.waiters, w.now
	s.waiters = nil
	end := func(err error) {
		if s.isGone() {
			return
		}
		s.running, s.isFailing, s.lastAt = false, err != nil, w.now
		for _, done := range waiters {
			done(err)
		}
		s.r.poke()
		pause := sampleInterval
		switch {
		case err != nil && !errors.Is(err, errHalf):
			pause = 2 * sampleInterval
		case s.r.asleep && s.r.lookout.isWatching && !s.r.lookout.isBroken():
			pause = min(restInterval, w.plan.maxAge/2)
		}
		pause -= time.Duration(w.rng.Float64() * 0.1 * float64(pause))
		if s.wanted {
			pause = 0
		}
		s.next(pause - (w.now - began))
	}
	s.exchange(began, end)
}

// exchange asks the broker, which may not answer, or break off.
func (s *sampler) exchange(began moment, end func(error)) {
	w := s.r.w
	switch {
	case s.r.isCut() || w.broker.pausedFor() > sampleTimeout:
		w.marks[samplesFailed]++
		w.after(sampleTimeout, func() { end(errNoAnswer) })
		return
	case w.chance(w.faults().badSample):
		w.marks[samplesFailed]++
		w.after(w.between(time.Millisecond, sampleTimeout), func() { end(errNoAnswer) })
		return
	}
	w.after(w.broker.pausedFor()+w.mostly(500*time.Microsecond, 5*time.Millisecond, 200*time.Millisecond), func() {
		read := func() {
			back := w.mostly(500*time.Microsecond, 5*time.Millisecond, 200*time.Millisecond)
			depth, counted := s.read(began)
			degraded := s.degrade(&depth)
			w.after(back, func() {
				if !s.isGone() {
					s.r.takes(depth, began, counted)
				}
				end(degraded)
			})
		}
		if w.plan.redis {
			read()
			return
		}
		s.list(read)
	})
}

// degrade has a part of a sample be missing: the management API is away, or a question
// was not answered. Whoever asks for a fresh sample is told.
func (s *sampler) degrade(d *queue.Depth) error {
	w := s.r.w
	if w.plan.redis || !w.chance(w.faults().halfSample) {
		return nil
	}
	w.marks[halfSamples]++
	if w.chance(0.5) {
		d.Backlog = queue.Unknown(errNoAnswer)
	} else {
		d.InFlight, d.Scheduled = queue.Unknown(errNoAnswer), queue.Unknown(errNoAnswer)
	}
	return errHalf
}

// listed is kept between the list of the management API and the questions by AMQP.
func (s *sampler) list(then func()) {
	s.r.listed = s.r.w.broker.listed()
	s.r.w.after(s.r.w.between(time.Millisecond, 10*time.Millisecond), then)
}

// read reads the counts. With Redis all are of one moment.
func (s *sampler) read(began moment) (queue.Depth, []*task) {
	w, now := s.r.w, s.r.w.broker.census()
	at := w.epoch.Add(began)
	executing := int64(0)
	if !w.plan.late {
		executing = s.r.told()
	}
	if w.plan.redis {
		return queue.Depth{
			Backlog: queue.Known(int64(now.ready), at), InFlight: queue.Known(int64(now.held)+executing, at),
			Scheduled: queue.Known(int64(now.scheduled), at),
		}, slices.Concat(now.readyTasks, now.heldTasks)
	}
	listed := s.r.listed
	heldAt := at
	if w.plan.quorum {
		heldAt = at.Add(-quorumTick)
	}
	inFlight := int64(listed.held+max(0, listed.ready-now.ready)) + executing
	d := queue.Depth{Backlog: queue.Known(int64(now.ready), at), InFlight: queue.Known(inFlight, heldAt), Scheduled: queue.Known(0, heldAt)}
	if inFlight > 0 {
		d.Scheduled = queue.Unknown(errors.New("which are held for an ETA is not told"))
	}
	return d, slices.Concat(now.readyTasks, listed.heldTasks, listed.readyTasks)
}

// lookout watches the queue of a sleeping target, as package lookout does: told by
// Redis, or reading again and again.
type lookout struct {
	r          *replica
	life       int
	isWatching bool
	isReading  bool // a read is planned
	brokenTill moment
}

func (l *lookout) isBroken() bool { return l.brokenTill > l.r.w.now || l.r.isCut() }

// watch begins or ends to watch. What waits at the beginning is read.
func (l *lookout) watch(on bool) {
	if on && !l.isWatching {
		l.read(l.r.w.mostly(time.Millisecond, 10*time.Millisecond, 20*time.Millisecond))
	}
	l.isWatching = on
}

// written is when a message has been put into the queue.
func (l *lookout) written() {
	w := l.r.w
	if !l.isWatching {
		return
	}
	if l.isBroken() { // with the next line everything is read
		l.read(0)
		return
	}
	if !w.plan.telling {
		l.read(w.between(0, pollInterval) + w.between(time.Millisecond, 3*time.Millisecond))
		return
	}
	if w.chance(w.faults().lostNotice) {
		w.marks[lostNotices]++
		l.r.deafTill = w.now + deafTime
		return
	}
	l.read(w.mostly(100*time.Microsecond, time.Millisecond, 5*time.Millisecond))
}

// snap breaks the line for some time. Then everything is read again.
func (l *lookout) snap(d time.Duration) {
	if !l.isWatching {
		return
	}
	l.r.w.marks[brokenLines]++
	l.brokenTill = max(l.brokenTill, l.r.w.now+d)
	l.read(d)
}

// read reads how many messages wait.
func (l *lookout) read(d time.Duration) {
	if l.isReading {
		return
	}
	l.isReading = true
	w := l.r.w
	w.after(d, func() {
		l.isReading = false
		switch {
		case l.r.life != l.life || !l.isWatching && !l.r.alive:
		case w.broker.isPaused():
			l.read(w.broker.pausedFor() + w.between(time.Millisecond, 20*time.Millisecond))
		case l.isBroken():
			l.read(max(l.brokenTill, l.r.hurtBy) - w.now + w.between(time.Millisecond, 100*time.Millisecond))
		case l.r.stalled > w.now:
			l.read(l.r.stalled - w.now)
		case len(w.broker.list) > 0:
			l.r.arrives(queue.Known(int64(len(w.broker.list)), w.clock()))
			l.r.poke()
			if l.isWatching && !w.plan.telling { // what is read next is news only while something waits
				l.read(pollInterval)
			}
		}
	})
}

// fresh implements zeroscaler.Fresh for one coroutine of a replica.
type fresh struct {
	r     *replica
	p     *proc
	look  *look
	until moment // of the look
}

// Sample implements zeroscaler.Fresh.
func (f *fresh) Sample(context.Context, queue.BrokerRef) error {
	if f.p.killed {
		return errNoAnswer
	}
	err, isOver := errNoAnswer, false
	f.r.sampler.fresh(func(e error) {
		if !isOver && !f.p.killed {
			err, isOver = e, true
			f.p.wakeIn(0)
		}
	})
	f.p.sleep(f.until - f.r.w.now)
	isOver = true
	f.r.standStill(f.p)
	return err
}

// Ask implements zeroscaler.Fresh: each worker that can be expected to answer is asked.
func (f *fresh) Ask(_ context.Context, fleet fleet.Fleet) error {
	w := f.r.w
	var asked []*heard
	for _, m := range fleet.Members {
		if h := f.r.memory.workers[m.Pod]; h != nil && !h.Offline() && !h.Silent(w.clock()) {
			asked = append(asked, h)
		}
	}
	if f.p.killed || len(asked) == 0 {
		return nil
	}
	answers, isOver := 0, false
	for _, h := range asked {
		f.ask(h, func() {
			if answers++; answers == len(asked) && !isOver {
				f.p.wakeIn(0)
			}
		})
	}
	f.p.sleep(min(answerTime, f.until-w.now))
	isOver = true
	w.mayStall(f.r)
	f.r.standStill(f.p)
	if answers < len(asked) {
		w.marks[silentWorkers]++
		return fmt.Errorf("%d workers have not answered", len(asked)-answers)
	}
	return nil
}

// ask asks one worker. One of the solo pool does not answer while it executes.
func (f *fresh) ask(h *heard, answered func()) {
	w, life := f.r.w, f.r.life
	there, back := w.between(500*time.Microsecond, 5*time.Millisecond), w.between(500*time.Microsecond, 5*time.Millisecond)
	if w.chance(w.faults().slowAnswer) {
		back += w.between(100*time.Millisecond, 2*time.Second)
	}
	w.after(there+w.broker.pausedFor(), func() {
		k := w.cluster.workerOf(h.Host)
		if k == nil || k.dead || k.draining || f.r.isCut() || w.plan.solo && len(k.executing) > 0 {
			return
		}
		n, executing := len(k.executing), slices.Clone(k.executing)
		w.after(back, func() {
			if f.r.life == life && !f.r.isCut() {
				h.Told, h.ToldAt, f.r.memory.fleet = n, w.clock(), nil
				f.look.asked = append(f.look.asked, executing...)
				answered()
			}
		})
	})
}

// workerOf is the worker of a pod, nil if there is none.
func (c *cluster) workerOf(name string) *worker {
	for _, p := range c.pods {
		if p.name == name {
			return p.worker
		}
	}
	return nil
}

// anyReplica is one of those that answer, nil if none does.
func (w *world) anyReplica() *replica {
	var alive []*replica
	for _, r := range w.replicas {
		if r.alive && !r.isOffline() && r.stalled <= w.now && r.informer.isSynced {
			alive = append(alive, r)
		}
	}
	if len(alive) == 0 {
		return nil
	}
	return alive[w.rng.IntN(len(alive))]
}

// webhookTime is for how long the API server waits for an answer.
const webhookTime = 3 * time.Second

// askWebhook has one of the replicas look, for 3 s at the most. No answer is a refusal.
func (w *world) askWebhook(answered func(*look, bool)) {
	r := w.anyReplica()
	if r == nil || w.chance(w.faults().lostAdmission) {
		w.marks[webhookFailures]++
		w.after(w.between(time.Millisecond, webhookTime), func() { answered(nil, false) })
		return
	}
	isOver := false
	end := func(l *look, isAllowed bool) {
		if !isOver {
			isOver = true
			w.say("the webhook on %s allows zero: %t", r.name, isAllowed)
			answered(l, isAllowed)
		}
	}
	w.after(webhookTime, func() { end(nil, false) })
	life := r.life
	w.spawn(func(p *proc) {
		r.standStill(p)
		if p.killed || r.life != life {
			return
		}
		l, isAllowed := r.admits(context.Background(), p)
		if !p.killed && r.life == life {
			w.after(w.between(500*time.Microsecond, 3*time.Millisecond), func() { end(l, isAllowed) })
		}
	})
}

// admits looks afresh, as package admission does.
func (r *replica) admits(ctx context.Context, p *proc) (*look, bool) {
	t := r.informer.target()
	if t.Zero.Paused {
		return nil, false
	}
	s := newSenses(r, p)
	seen, err := scales{r, p}.Get(ctx, t)
	if err != nil {
		return nil, false
	}
	began := r.w.now
	blockers := idle.Blockers(s.Look(ctx, t, seen))
	if len(blockers) > 0 {
		r.w.say("the webhook on %s: %s", r.name, blockers[0].Text)
	}
	isAllowed := len(blockers) == 0 && r.w.now-began < 2*time.Second
	if isAllowed && !p.killed {
		r.w.judge.admits(r, t)
	}
	return s.last, isAllowed
}
