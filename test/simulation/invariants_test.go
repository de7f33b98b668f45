package simulation_test

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

const (
	// toldWithin and polledWithin bound a wake by the replica that leads, from the
	// moment at which it could know of a message; standbyWithin is what the others wait
	// for more, noticedWithin the bound where the notice was lost, without the time after a
	// sample that has failed.
	toldWithin    = 100 * time.Millisecond
	polledWithin  = toldWithin + 60*time.Millisecond
	standbyWithin = 200 * time.Millisecond
	noticedWithin = 7 * time.Second
	// raisedWithin bounds a raise while no worker has taken anything, resampledWithin
	// after: what is in flight is known with the next sample.
	raisedWithin, resampledWithin = 550 * time.Millisecond, 1700 * time.Millisecond
	// checkGap is the time between the two looks before a step to zero.
	checkGap = 250 * time.Millisecond
	// raiseTime is for how long after a wake the size is to follow.
	raiseTime = 15 * time.Second
)

// judge knows everything, and convicts the program of what must not be. It asks none of
// the program's own functions.
type judge struct {
	w        *world
	verdict  string // the first violation
	healedAt moment
	// wasWaiting is whether a message waited at zero before the latest event; isShort,
	// whether there were fewer workers after a wake than the HPA would have.
	wasWaiting, isShort bool
	wokeAt              moment // when one of ours woke the target, 0 for not
	emptyAt             moment // when no message waited or was stranded, the last time
	// pushes, size and open are those before the latest event.
	pushes, open int
	size         int32
}

// stretch is how long a replica could have done something, and has not: while it leads,
// at all, and with what it knows by samples alone.
type stretch struct{ byLeader, byAny, byDeaf time.Duration }

// convict notes the first violation, at the time of the latest event. A stretch that is too
// long reaches until the next one.
func (j *judge) convict(format string, args ...any) {
	if j.verdict == "" {
		j.verdict = fmt.Sprintf("at %s: ", j.w.now) + fmt.Sprintf(format, args...)
		j.w.say("VIOLATION %s", j.verdict)
	}
}

// isClean tells whether an observation proves idleness.
func isClean(o idle.Observation) bool {
	if o.ReplicasErr != nil || o.Replicas == 0 || o.QueuesErr != nil || o.WorkersErr != nil || len(o.Queues) == 0 || len(o.Workers) > 0 {
		return false
	}
	for _, q := range o.Queues {
		if b, f := q.Depth.Backlog, q.Depth.InFlight; b.Err != nil || f.Err != nil || b.N != 0 || f.N != 0 {
			return false
		}
	}
	return true
}

// decided follows what a replica has seen.
func (j *judge) decided(r *replica, t target.Target, o idle.Observation, d idle.Decision) {
	s := &r.reins
	s.decided = d
	if !isClean(o) || t.Zero.Paused {
		s.cleanFrom, s.sampleAt, s.looks = j.w.now, s.sampleAt[:0], s.looks[:0]
		s.isDirty = true
	} else {
		if s.isDirty {
			s.isDirty, s.cleanFrom = false, j.w.now
		}
		at := o.Queues[0].Depth.Backlog.At.Sub(j.w.epoch)
		if n := len(s.sampleAt); n == 0 || at > s.sampleAt[n-1] {
			s.sampleAt = append(s.sampleAt, at)
		}
	}
	s.knew.follow(o, d, j.w.now)
	if isBlind(o) && o.Pods > 0 { // which may take what waited, for all that it sees: what it finds next may be another
		s.wait.byAny = 0
	}
}

// knowledge is that of a replica that a message waits at zero, or is stranded. What is not
// known ends none: a message that was there is there until one knows that it is gone.
type knowledge struct {
	// since is when it began, -1 while there is none. The time in which the replica did not
	// know is left out, which began at unsure, -1 while it knows.
	since, unsure moment
	// blind is when it last began not to know, again when it knew again; -1 if that was not.
	blind, again moment
}

func nothing() knowledge { return knowledge{-1, -1, -1, -1} }

// follow takes in an observation.
func (k *knowledge) follow(o idle.Observation, d idle.Decision, now moment) {
	switch {
	case hasWork(o) || d.Cause == idle.Standby || d.Cause == idle.Arrived: // or a raise is due
		if k.since < 0 {
			k.since = now
		}
		if k.unsure >= 0 {
			k.since += now - k.unsure
			k.unsure, k.again = -1, now
		}
	case isBlind(o):
		if k.since >= 0 && k.unsure < 0 {
			k.unsure, k.blind = now, now
		}
	default:
		*k = nothing()
	}
}

// isBlind tells whether a message may wait at zero that an observation does not show.
func isBlind(o idle.Observation) bool {
	if o.ReplicasErr != nil {
		return true
	}
	return o.Replicas == 0 && (o.QueuesErr != nil || slices.ContainsFunc(o.Queues, func(q idle.Queue) bool { return q.Depth.Backlog.Err != nil }))
}

// hasWork tells whether an observation at zero shows a message that waits, or one that is
// held while there is no pod.
func hasWork(o idle.Observation) bool {
	if o.ReplicasErr != nil || o.Replicas != 0 {
		return false
	}
	for _, q := range o.Queues {
		if b, f := q.Depth.Backlog, q.Depth.InFlight; b.Err == nil && b.N > 0 || f.Err == nil && f.N > 0 && o.Pods == 0 {
			return true
		}
	}
	return false
}

// looked follows the looks of a machine.
func (j *judge) looked(r *replica, o idle.Observation) {
	if isClean(o) {
		r.reins.looks = append(r.reins.looks, j.w.now)
	}
}

// sets judges a write of celery-hpa by what that replica knew.
func (j *judge) sets(r *replica, t target.Target, seen zeroscaler.Scale, to int32) {
	j.setsPaused(r, t, to)
	if to == 0 {
		j.setsZero(r, t, seen)
		return
	}
	action := r.reins.decided.Action
	if action == idle.Wake {
		j.wakes(r, t, to)
		j.goesFirst(r)
	}
	switch {
	case action != idle.Wake && action != idle.Raise:
		j.convict("6: %s writes %d after it has decided to %s", r.name, to, action)
	case to <= seen.Replicas:
		j.convict("6: %s lowers from %d to %d", r.name, seen.Replicas, to)
	case to > t.MaxReplicas:
		j.convict("6: %s writes %d, which is above %d", r.name, to, t.MaxReplicas)
	}
}

// goesFirst judges that a replica that does not lead wakes: it has left time to the one
// that does, and did not do so for an earlier message.
func (j *judge) goesFirst(r *replica) {
	knew := r.reins.knew
	switch {
	case r.leads():
		if knew.since >= 0 && knew.since < r.ledAt {
			j.w.marks[ledWakes]++
		}
		return
	case knew.blind >= 0:
		j.w.marks[blindWakes]++
	}
	j.w.marks[standbyWakes]++
	switch {
	case knew.since < 0:
	case j.w.now-knew.since < standbyWithin:
		j.convict("5: %s does not lead and wakes %s after it knew", r.name, j.w.now-knew.since)
	case r.reins.decided.Cause == idle.Arrived && knew.again >= 0 && j.w.now-knew.again < standbyWithin && j.emptyAt >= knew.blind && j.w.now-j.emptyAt < standbyWithin:
		j.convict("5: %s does not lead and wakes %s after a message has come, as if it had known of it before %s", r.name, j.w.now-j.emptyAt, knew.blind)
	}
}

func (j *judge) setsPaused(r *replica, t target.Target, to int32) {
	if r.informer.says.paused && !t.Zero.Paused {
		j.w.marks[pausedMeanwhile]++ // the webhook knows, where it is installed
	}
	if t.Zero.Paused {
		j.convict("7: %s writes %d although the target is paused", r.name, to)
	}
}

// wakes judges the size of a wake.
func (j *judge) wakes(r *replica, t target.Target, to int32) {
	if want := j.sizeFor(r, t); r.reins.decided.Cause == idle.Arrived && to < want {
		j.convict("5: %s wakes to %d, and by what it knew the HPA would have %d", r.name, to, want)
	}
}

// sizeFor is what the HPA would have for the tasks that a replica knows of, 0 if it does
// not know.
func (j *judge) sizeFor(r *replica, t target.Target) int32 {
	tasks := r.value(tasksMetric)
	if tasks.Err != nil {
		return 0
	}
	n := int32((tasks.N + int64(j.w.plan.concurrency) - 1) / int64(j.w.plan.concurrency))
	return min(max(n, t.MinReplicas, 1), t.MaxReplicas)
}

// setsZero judges a step to zero of a machine.
func (j *judge) setsZero(r *replica, t target.Target, seen zeroscaler.Scale) {
	floor := max(t.MinReplicas, 1)
	switch {
	case r.reins.decided.Action != idle.Sleep || r.senses.last == nil:
		j.convict("3: %s writes 0 after it has decided to %s", r.name, r.reins.decided.Action)
	case !r.leads():
		j.convict("4: %s writes 0 and does not lead", r.name)
	case t.MinReplicas == 0:
		j.convict("6: %s writes 0 where the HPA itself does", r.name)
	case seen.ResourceVersion != r.senses.last.version:
		j.convict("6: %s writes 0 over version %s, and has looked at version %s", r.name, seen.ResourceVersion, r.senses.last.version)
	case seen.Replicas != floor:
		j.convict("6: %s writes 0 over %d, which is not the floor %d", r.name, seen.Replicas, floor)
	}
	j.wasIdle(r, t.Zero.Window)
	j.knowsNothing(r, "writes 0")
}

// wasIdle judges the idle window before a step to zero, and the looks at its end.
func (j *judge) wasIdle(r *replica, window time.Duration) {
	since := j.w.now - r.reins.cleanFrom
	switch {
	case r.reins.isDirty || since < window:
		j.convict("4: %s writes 0 after only %s of idleness (window %s)", r.name, since, window)
	case r.reins.hasSlept && j.w.now-r.reins.sleptAt < window:
		j.convict("4: %s writes 0 a second time after %s", r.name, j.w.now-r.reins.sleptAt)
	}
	if n := len(r.reins.looks); n < 2 || r.reins.looks[n-1]-r.reins.looks[n-2] < checkGap || j.w.now-r.reins.looks[n-2] > 10*time.Second {
		j.convict("3: %s writes 0 without two looks %s apart: %s", r.name, checkGap, r.reins.looks)
	}
	if got, least := len(r.reins.sampleAt), 0.9*float64(window)/float64(sampleInterval)-1; float64(got) < least {
		j.convict("4: %s writes 0 with %d samples in its window of %s", r.name, got, window)
	}
}

// knowsNothing judges by the memory of a replica itself that nothing is in flight, and
// nothing unknown.
func (j *judge) knowsNothing(r *replica, what string) {
	d, err := r.depthNow()
	if err != nil || d.Backlog.Err != nil || d.InFlight.Err != nil || d.Backlog.N+d.InFlight.N > 0 {
		j.convict("3: %s %s knowing of backlog %d (%v), in flight %d (%v), %v", r.name, what, d.Backlog.N, d.Backlog.Err, d.InFlight.N, d.InFlight.Err, err)
	}
	if !r.informer.isSynced {
		j.convict("3: %s %s without knowing the pods", r.name, what)
	}
	f, _ := r.fleetNow()
	for _, m := range f.Members {
		if m.State != fleet.Idle && m.State != fleet.Starting {
			j.convict("3: %s %s while pod %s is %s: %s", r.name, what, m.Pod, m.State, m.Reason)
		}
	}
}

// admits judges what the webhook lets pass.
func (j *judge) admits(r *replica, t target.Target) {
	if t.Zero.Paused {
		j.convict("7: the webhook on %s admits 0 although the target is paused", r.name)
	}
	j.knowsNothing(r, "admits 0")
}

// commits judges a write at the moment at which it counts.
func (j *judge) commits(q request, from int32) {
	j.w.say("%d replicas instead of %d", q.to, from)
	if q.by == us && q.to < from && q.to != 0 {
		j.convict("6: celery-hpa lowers from %d to %d", from, q.to)
	}
	if q.by == us && from == 0 {
		j.wokeAt = j.w.now
	}
	isOurs := q.by == us || q.by == theHPA && j.w.plan.webhook
	if q.to == 0 && from > 0 && isOurs {
		j.commitsZero(q)
	}
}

// commitsZero judges a step to zero by the look on which it stands.
func (j *judge) commitsZero(q request) {
	if q.by == theHPA {
		j.w.marks[hpaSleeps]++
	} else {
		q.replica.reins.hasSlept, q.replica.reins.sleptAt = true, j.w.now
	}
	if q.look == nil {
		j.convict("3: a step to zero without a look")
		return
	}
	for _, t := range slices.Concat(q.look.counted, q.look.asked) {
		if t.isOpen() {
			j.convict("3: a step to zero over task %d, which the look of %s at %s could see", t.id, q.look.replica.name, q.look.began)
		}
	}
	for _, t := range j.w.broker.tasks {
		if j.wasThere(t, q.look.began) {
			j.convict("3: a step to zero over task %d, which was there before the look of %s at %s began", t.id, q.look.replica.name, q.look.began)
		}
	}
}

// wasThere tells whether a task has been where a look that began then must have found it:
// in the list, with a worker that executes it, or unacknowledged, of which quorum queues
// alone tell later.
func (j *judge) wasThere(t *task, began moment) bool {
	switch t.place {
	case waiting:
		return t.pushedAt < began
	case executing:
		return t.beganAt < began
	case held, limbo:
		return t.pickedUp < began && !j.w.plan.quorum
	default:
		return false
	}
}

// killed judges that a worker is killed while it executes a task, or has just popped it.
func (j *judge) killed(k *worker, t *task) {
	l := k.pod.zeroLook
	if l == nil {
		return
	}
	if slices.Contains(l.counted, t) || slices.Contains(l.asked, t) {
		j.convict("1: a step to zero has killed task %d, which the look at %s could see", t.id, l.began)
	}
	if t.place == executing && t.beganAt < l.began {
		j.convict("1: a step to zero has killed task %d, which executed since %s; the look was at %s", t.id, t.beganAt, l.began)
	}
	j.w.marks[takenInGap]++
	if !j.w.plan.late || t.place == gap {
		j.w.marks[lostInGap]++
	}
}

// couldAct tells whether a replica hears, knows and can write.
func (j *judge) couldAct(r *replica) bool {
	now, steady := j.w.now, 150*time.Millisecond
	isHindered := r.busy || now <= r.stalled || now <= r.holdsOff
	isCut := now <= max(r.hurtBy, r.apiBy, r.lookout.brokenTill, j.w.broker.paused)+steady
	return r.alive && !isHindered && !isCut && j.isInformed(r)
}

// isInformed tells whether a replica knows what the API server has, and watches the queue.
func (j *judge) isInformed(r *replica) bool {
	return r.informer.isSynced && !r.informer.says.paused && r.view().version == j.w.cluster.size.version &&
		r.lookout.isWatching && r.memory.broker().Sampled()
}

// elapse lets time pass until the next event.
func (j *judge) elapse(until moment) {
	if len(j.w.broker.list) == 0 && !slices.ContainsFunc(j.w.broker.unacked, func(t *task) bool { return t.place == limbo }) {
		j.emptyAt = until
	}
	isWaiting := j.w.cluster.size.replicas == 0 && len(j.w.broker.list) > 0 && !j.w.plan.spec.paused
	if j.wasWaiting && j.w.cluster.size.replicas > 0 {
		j.w.marks[waitsJudged]++
	}
	j.wasWaiting = isWaiting
	for _, r := range j.w.replicas {
		if !isWaiting {
			r.reins.wait = stretch{}
			continue
		}
		j.lapse(r, &r.reins.wait, until)
		j.judgeWait(r.reins.wait)
	}
	j.judgeSize(until)
}

// lapse adds to a stretch the time in which a replica could act.
func (j *judge) lapse(r *replica, s *stretch, until moment) {
	if !j.couldAct(r) {
		return
	}
	d := until - j.w.now
	if !r.sampler.isFailing {
		s.byDeaf += d
	}
	if known, err := r.depthNow(); err != nil || known.Backlog.Err != nil || r.isDeaf() {
		return // until the next sample
	}
	s.byAny += d
	if r.leads() {
		s.byLeader += d
	}
}

func (j *judge) judgeWait(s stretch) {
	bound := toldWithin
	if !j.w.plan.telling {
		bound = polledWithin
	}
	switch {
	case s.byLeader > bound:
		j.convict("5: a message waits at zero for %s although the leader could wake the target", s.byLeader)
	case s.byAny > bound+standbyWithin:
		j.convict("5: a message waits at zero for %s although a replica could wake the target", s.byAny)
	case s.byDeaf > noticedWithin:
		j.convict("5: a message waits at zero for %s, and no sample has shown it", s.byDeaf)
	}
}

// judgeSize judges the size after a wake, while messages arrive.
func (j *judge) judgeSize(until moment) {
	b, size := j.w.broker, j.w.cluster.size.replicas
	if size == 0 {
		j.wokeAt = 0
	}
	open := j.work()
	isNews := b.pushes != j.pushes || size != j.size || open > j.open
	j.pushes, j.size, j.open = b.pushes, size, open
	isRising := j.wokeAt > 0 && j.w.now-j.wokeAt < raiseTime-time.Second && !j.w.plan.spec.paused
	isEnough := j.suffices(size, open)
	if j.isShort && isEnough && size > 0 {
		j.w.marks[sizesJudged]++
	}
	j.isShort = isRising && !isEnough
	j.lapseShort(isNews, until)
}

// lapseShort has time pass for the replicas that know of a size that does not suffice.
func (j *judge) lapseShort(isNews bool, until moment) {
	for _, r := range j.w.replicas {
		isFreshTill := r.sampler.lastAt + sampleInterval*5/4
		if !j.isShort || isNews || r.sampler.isFailing || j.w.now > isFreshTill {
			r.reins.short = stretch{}
			continue
		}
		j.lapse(r, &r.reins.short, min(until, isFreshTill))
		j.judgeShort(r.reins.short)
	}
}

// suffices tells whether the HPA would leave a size as it is.
func (j *judge) suffices(size int32, open int) bool {
	want := min(int32(math.Ceil(float64(open)/float64(j.w.plan.concurrency))), j.w.plan.spec.most)
	return want <= size || float64(open) <= 1.1*float64(size)*float64(j.w.plan.concurrency)
}

func (j *judge) judgeShort(s stretch) {
	bound := raisedWithin
	if len(j.w.broker.unacked) > 0 || !j.w.plan.telling {
		bound = resampledWithin
	}
	if s.byLeader > bound || s.byAny > bound+standbyWithin {
		j.convict("5: %d workers for %d tasks, for %s", j.size, j.open, s.byAny)
	}
}

// work is what the replicas can know of: of quorum queues, what waits alone.
func (j *judge) work() int {
	open := len(j.w.broker.list)
	for _, t := range j.w.broker.unacked {
		if t.eta <= j.w.now && !j.w.plan.quorum && t.place != limbo {
			open++
		}
	}
	return open
}

// ends judges the end of a schedule: nothing is left, and everything sleeps.
func (j *judge) ends() {
	if j.verdict != "" {
		return
	}
	if n := j.w.broker.open; n > 0 {
		for _, t := range j.w.broker.tasks {
			if t.isOpen() {
				j.convict("2: task %d and %d others are not finished %s after the end of all faults", t.id, n-1, j.w.now-j.healedAt)
			}
		}
	}
	if n := j.w.cluster.size.replicas; n > 0 {
		j.convict("8: %d replicas are awake, long after the last task", n)
	}
}
