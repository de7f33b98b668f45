package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	// callTimeout bounds a write (pkg/act/scale).
	callTimeout = 2 * time.Second
	// leastPause is the least time between two steps (pkg/act/zeroscaler, runner).
	leastPause = 2 * time.Millisecond
	// conflictPause is that after a first conflict (pkg/act/zeroscaler, Machine).
	conflictPause = 20 * time.Millisecond
)

var errTimeout = errors.New("the API server has not answered in time")

// replica is one process of celery-hpa, with what it knows. A new process begins in the
// same place, of which the life tells.
type replica struct {
	w       *world
	name    string
	life    int
	alive   bool
	began   moment
	hurtBy  moment // until then it is cut off from the broker
	apiBy   moment // until then it is cut off from the API server
	stalled moment // until then the whole process stands still

	memory   memory
	informer *informer
	sampler  *sampler
	lookout  *lookout
	senses   *senses
	machine  *zeroscaler.Machine
	written  written
	proc     *proc
	waits    bool // for something to do
	poked    bool
	listed   census // by the management API, lately
	asleep   bool   // as of its last step
	busy     bool   // in a call
	deafTill moment
	holdsOff moment // after a write that has failed
	failures int    // of writes, in a row
	ledAt    moment // when it began to lead, the last time
	reins    reins
}

// reins is what the judge notes of a replica.
type reins struct {
	decided     idle.Decision
	cleanFrom   moment // since when every observation showed idleness at the floor
	isDirty     bool
	sampleAt    []moment // of the samples since
	looks       []moment // of the machine since, that found nothing
	sleptAt     moment
	hasSlept    bool
	wait, short stretch // a message that waits at zero, too few workers
	knew        knowledge
}

func newReplica(w *world, name string) *replica {
	r := &replica{w: w, name: name}
	r.start()
	return r
}

// start begins a process that knows nothing.
func (r *replica) start() {
	r.life++
	r.alive, r.began = true, r.w.now
	r.memory = newMemory(r.w.plan.maxAge)
	r.informer = startInformer(r)
	r.lookout = &lookout{r: r, life: r.life}
	r.sampler = &sampler{r: r, life: r.life, isFailing: true}
	r.written = written{}
	r.asleep, r.busy, r.poked, r.waits, r.deafTill, r.holdsOff, r.failures = false, false, false, false, 0, 0, 0
	r.reins = reins{isDirty: true, knew: nothing()}
	r.w.after(r.w.between(0, 100*time.Millisecond), r.sampler.due)
	r.proc = r.w.spawn(r.run)
}

// kill ends the process where it stands.
func (r *replica) kill() {
	if !r.alive {
		return
	}
	r.w.say("%s is killed", r.name)
	r.alive = false
	r.life++
	r.lookout.isWatching = false
	r.proc.kill()
}

// run steps the machine whenever there is a reason to, as the runner does.
func (r *replica) run(p *proc) {
	r.senses = newSenses(r, p)
	r.machine = zeroscaler.NewMachine(zeroscaler.Parts{
		Scales: scales{r, p}, Senses: r.senses, Journal: journal{r}, Leads: r.leads,
		Turns: zeroscaler.NewTurns(), Now: r.w.clock,
	})
	for !p.killed {
		r.poked, r.busy = false, true
		after := r.machine.Step(context.Background(), r.informer.target())
		r.busy = false
		if p.killed {
			return
		}
		r.adjust()
		if r.poked {
			continue
		}
		r.waits = true
		p.sleep(max(after, leastPause))
		r.waits = false
		r.standStill(p)
	}
}

// standStill is a process that is given no time by its machine.
func (r *replica) standStill(p *proc) {
	if d := r.stalled - r.w.now; d > 0 && !p.killed {
		p.sleep(d)
	}
}

// adjust watches queues closely, or not, after a step.
func (r *replica) adjust() {
	r.lookout.watch(r.machine.Watchful())
	now := r.informer.isSynced && r.view().replicas == 0
	if r.asleep && !now {
		r.sampler.hurry()
	}
	r.asleep = now
}

// poke has the machine look at once.
func (r *replica) poke() {
	r.poked = true
	if r.waits {
		r.proc.wakeIn(0)
	}
}

func (r *replica) leads() bool { return r.alive && r.w.lease.isHeldBy(r) }

// isCut tells whether it is cut off from the broker.
func (r *replica) isCut() bool { return r.hurtBy > r.w.now }

// isOffline tells whether it is cut off from the API server.
func (r *replica) isOffline() bool { return r.apiBy > r.w.now }

// written is what the replica itself has written, until its informer has seen it.
type written struct {
	size     size
	replaced map[int]bool
}

// view is the size as the replica knows it.
func (r *replica) view() size {
	if r.written.replaced[r.informer.seen.version] {
		return r.written.size
	}
	r.written = written{}
	return r.informer.seen
}

// scales are the API server's, as called by a coroutine of a replica.
type scales struct {
	r *replica
	p *proc
}

// Get implements zeroscaler.Scales.
func (s scales) Get(context.Context, target.Target) (zeroscaler.Scale, error) {
	if !s.r.informer.isSynced {
		return zeroscaler.Scale{}, errors.New("the Deployments of the namespace are not known yet")
	}
	v := s.r.view()
	return zeroscaler.Scale{Replicas: v.replicas, Pods: v.pods, UID: "d", ResourceVersion: strconv.Itoa(v.version)}, nil
}

// Set implements zeroscaler.Scales.
func (s scales) Set(_ context.Context, t target.Target, seen zeroscaler.Scale, replicas int32) error {
	r, p := s.r, s.p
	if p.killed {
		return errTimeout
	}
	version, err := strconv.Atoi(seen.ResourceVersion)
	if err != nil {
		r.w.judge.convict("6: a write without a resourceVersion")
	}
	r.w.judge.sets(r, t, seen, replicas)
	r.standStill(p)
	if p.killed {
		return errTimeout
	}
	r.w.say("%s writes %d over %d (version %d)", r.name, replicas, seen.Replicas, version)
	r.w.mayKill(r)
	got, now := r.call(p, request{by: us, replica: r, version: version, to: replicas, look: r.senses.last}) //nolint:contextcheck // nothing here waits
	if p.killed {
		return errTimeout
	}
	r.holdOff(got)
	switch got {
	case conflict:
		return fmt.Errorf("scale: %w", zeroscaler.ErrConflict)
	case refused:
		return fmt.Errorf("scale: %w", &zeroscaler.RefusedError{Message: "celery-hpa: not to zero"})
	case failed:
		return errTimeout
	case accepted:
	}
	if now.version != version {
		if r.written.replaced == nil {
			r.written.replaced = map[int]bool{}
		}
		r.written.replaced[version] = true
		r.written.size = now
	}
	return nil
}

// holdOff notes for how long the machine need not write again: a little while after the
// first conflict, since whoever wrote was faster, and longer after what failed.
func (r *replica) holdOff(got answer) {
	switch {
	case got == accepted:
		r.failures, r.holdsOff = 0, 0
		return
	case got == conflict && r.failures == 0:
		r.holdsOff = r.w.now + conflictPause
	default:
		r.holdsOff = r.w.now + callTimeout
	}
	r.failures++
}

// call makes a request and waits for its answer, for 2 s at the most.
func (r *replica) call(p *proc, q request) (answer, size) {
	got, now, isAnswered := failed, size{}, false
	if !r.isOffline() {
		r.w.cluster.write(q, func(a answer, s size) {
			if !isAnswered && !p.killed && !r.isOffline() {
				got, now, isAnswered = a, s, true
				p.wakeIn(max(0, r.stalled-r.w.now))
			}
		})
	}
	if !isAnswered {
		p.sleep(callTimeout)
	}
	if !isAnswered {
		isAnswered = true // what comes later is not heard
		r.w.marks[timeouts]++
	}
	return got, now
}

// journal tells the judge, and the tale.
type journal struct{ r *replica }

// Decided implements zeroscaler.Journal.
func (j journal) Decided(t target.Target, o idle.Observation, d idle.Decision, _ time.Time) {
	if j.r.proc == nil || j.r.proc.killed {
		return
	}
	if was := j.r.reins.decided; was.Reason != d.Reason || was.Action != d.Action {
		j.r.w.say("%s: %s, %s: %s", j.r.name, d.Action, d.Cause, d.Reason)
	}
	j.r.w.judge.decided(j.r, t, o, d)
	if d.Action == idle.Check {
		j.r.w.marks[checks]++
		j.r.w.temptation(0.15)
	}
}

// Slept implements zeroscaler.Journal.
func (j journal) Slept(target.Target, int32, idle.Decision, time.Time) {
	j.r.w.marks[sleeps]++
	j.r.w.say("%s has put to sleep", j.r.name)
}

// Woke implements zeroscaler.Journal.
func (j journal) Woke(_ target.Target, to int32, d idle.Decision, waited time.Duration, _ time.Time) {
	j.r.w.marks[wakes]++
	if d.Cause == idle.Stranded {
		j.r.w.marks[strandedWakes]++
	}
	j.r.w.say("%s has woken to %d after %s", j.r.name, to, waited)
}

// Raised implements zeroscaler.Journal.
func (j journal) Raised(_ target.Target, from, to int32, _ idle.Decision, _ time.Time) {
	j.r.w.marks[raises]++
	j.r.w.say("%s has raised from %d to %d", j.r.name, from, to)
}

// Refused implements zeroscaler.Journal.
func (j journal) Refused(_ target.Target, _ idle.Cause, message string, _ time.Time) {
	j.r.w.marks[lateLooks]++
	j.r.w.say("%s: refused: %s", j.r.name, message)
}

// Failed implements zeroscaler.Journal.
func (j journal) Failed(_ target.Target, action idle.Action, err error, _ time.Time) {
	j.r.w.say("%s: %s failed: %v", j.r.name, action, err)
}

// Mistaken, Delayed and Forget implement zeroscaler.Journal.
func (j journal) Mistaken(target.Target, time.Time)               {}
func (j journal) Delayed(target.Target, time.Duration, time.Time) {}
func (j journal) Forget(target.Target)                            {}

// lease tells which replica leads.
type lease struct {
	w       *world
	holder  *replica
	life    int
	renewed moment
	// former is who led before and may believe for a moment that it still does.
	former     *replica
	formerLife int
	formerTill moment
}

const (
	leaseTime  = 10 * time.Second // for which a lease is respected that nobody renews
	leadsTime  = 7 * time.Second  // for which its holder leads after a renewal
	retryPause = 2 * time.Second
)

func (l *lease) isHeldBy(r *replica) bool {
	if l.former == r && l.formerLife == r.life && l.formerTill > l.w.now {
		return true
	}
	return l.holder == r && l.life == r.life && l.w.now-l.renewed < leadsTime
}

// contend is each replica's attempt to get or renew the lease.
func (l *lease) contend(r *replica) {
	l.w.after(l.w.between(retryPause*9/10, retryPause*11/10), func() { l.contend(r) })
	if !r.alive || r.isOffline() || r.stalled > l.w.now {
		return
	}
	isMine := l.holder == r && l.life == r.life
	if !isMine && l.holder != nil && l.w.now-l.renewed < leaseTime {
		return
	}
	wasHeld := l.isHeldBy(r)
	if !isMine {
		l.handOver(r)
	}
	l.holder, l.life, l.renewed = r, r.life, l.w.now
	if !wasHeld {
		r.ledAt = l.w.now
		r.poke()
	}
}

// handOver is when another begins to lead. Who did before may believe for a moment that it
// still does, where its clock lags.
func (l *lease) handOver(r *replica) {
	l.w.say("%s leads", r.name)
	if l.holder == nil {
		return
	}
	l.w.marks[handovers]++
	if l.holder.alive && l.holder.life == l.life && l.w.chance(0.7) {
		l.w.marks[twoLeaders]++
		l.former, l.formerLife, l.formerTill = l.holder, l.life, l.w.now+l.w.between(0, 3*time.Second)
	}
}

// release gives the lease back, as a replica does that ends in order.
func (l *lease) release(r *replica) {
	if l.holder == r {
		l.renewed = l.w.now - leaseTime
	}
}
