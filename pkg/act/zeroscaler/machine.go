package zeroscaler

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	// WakesPerSecond is how many targets one replica wakes in a second at the most, and
	// how many of them at once. They take turns in the order in which they were due.
	WakesPerSecond = 20
	// conflictPause is the pause after somebody else has written a target: about as long
	// as it takes to hear of what.
	conflictPause = 20 * time.Millisecond
	// lostFor is after how long a target whose size cannot be read is not merely late,
	// as all are that are listed for the first time.
	lostFor = 5 * time.Second
	// firstPause and lastPause bound the pause after a write that has failed, which
	// doubles.
	firstPause, lastPause = 250 * time.Millisecond, 2 * time.Second
)

// Parts are what a Machine works with.
type Parts struct {
	Scales  Scales
	Senses  Senses
	Journal Journal
	// Leads tells whether this replica of celery-hpa puts to sleep.
	Leads func() bool
	// Turns bounds the wakes of all machines together.
	Turns *rate.Limiter
	Now   func() time.Time
}

// NewTurns makes the limit that the machines of one replica share.
func NewTurns() *rate.Limiter { return rate.NewLimiter(WakesPerSecond, WakesPerSecond) }

// Machine takes one target to zero and back. It is not safe for concurrent use.
type Machine struct {
	parts    Parts
	state    idle.State
	turn     *rate.Reservation // of a wake that waits for its turn, nil if none does
	failures int               // writes in a row
	lostAt   time.Time         // since when its size cannot be read, zero while it can
}

// NewMachine makes a machine that has seen nothing yet.
func NewMachine(parts Parts) *Machine { return &Machine{parts: parts} }

// Watchful reports whether the queues of the target are to be watched closely: it
// sleeps, or messages may still be arriving after it has woken.
func (m *Machine) Watchful() bool {
	st := m.state
	return st.Seen && (st.Replicas == 0 || !st.WokeAt.IsZero() && m.parts.Now().Sub(st.WokeAt) < idle.RaiseFor)
}

// Step looks at the target, does what is due, and returns after what time to look
// again at the latest. It blocks for the write that it makes, or for the look afresh
// before a step to zero.
func (m *Machine) Step(ctx context.Context, t target.Target) time.Duration {
	seen, err := m.parts.Scales.Get(ctx, t)
	now := m.parts.Now()
	o := m.observe(t, seen, now)
	o.ReplicasErr = err
	before := m.state
	st, d := idle.Decide(specOf(t), before, o, now)
	m.state = st
	m.tell(t, o, d, now)
	if d.Action != idle.Wake {
		m.giveUpTurn(now)
	}
	switch d.Action {
	case idle.Check:
		return m.check(ctx, t, seen)
	case idle.Wake:
		return m.wake(ctx, t, seen, d)
	case idle.Raise:
		return m.raise(ctx, t, seen, d)
	case idle.Hold, idle.Sleep:
	}
	return d.After
}

// tell tells of a decision; of what keeps the target from ever going to zero as a
// mistake, once it is certain.
func (m *Machine) tell(t target.Target, o idle.Observation, d idle.Decision, now time.Time) {
	if o.ReplicasErr == nil {
		m.lostAt = time.Time{}
	} else if m.lostAt.IsZero() {
		m.lostAt = now
	}
	switch {
	case !m.lostAt.IsZero() && now.Sub(m.lostAt) >= lostFor:
		t.Zero.Mistake = o.ReplicasErr
	case d.Cause == idle.Foreign:
		t.Zero.Mistake = errors.New(d.Reason)
	default:
		m.parts.Journal.Decided(t, o, d, now)
		return
	}
	m.parts.Journal.Mistaken(t, now)
}

func (m *Machine) observe(t target.Target, seen Scale, now time.Time) idle.Observation {
	return m.complete(m.parts.Senses.Observe(t, seen, now), seen)
}

func (m *Machine) complete(o idle.Observation, seen Scale) idle.Observation {
	o.Replicas, o.Pods, o.Leads = seen.Replicas, max(o.Pods, int(seen.Pods)), m.parts.Leads()
	return o
}

// specOf is what the HPA wants of a target.
func specOf(t target.Target) idle.Spec {
	return idle.Spec{
		Window: t.Zero.Window,
		Floor:  max(t.MinReplicas, 1), Ceiling: t.MaxReplicas,
		Paused: t.Zero.Paused, HPASleeps: t.MinReplicas == 0,
		Foreign: strings.Join(t.Foreign, ", "),
	}
}

// check looks afresh, and puts the target to sleep once that has found nothing twice.
func (m *Machine) check(ctx context.Context, t target.Target, seen Scale) time.Duration {
	o := m.complete(m.parts.Senses.Look(ctx, t, seen), seen)
	now := m.parts.Now()
	before := m.state
	st, d := idle.Confirm(specOf(t), before, o, now)
	m.state = st
	m.parts.Journal.Decided(t, o, d, now)
	if blockers := idle.Blockers(o); len(blockers) > 0 {
		m.parts.Journal.Refused(t, d.Cause, text(blockers), now)
	}
	if d.Action != idle.Sleep || !o.Leads || ctx.Err() != nil {
		return d.After
	}
	err := m.parts.Scales.Set(ctx, t, seen, 0)
	if err == nil {
		m.parts.Journal.Slept(t, seen.Replicas, d, m.parts.Now())
		m.failures = 0
		return 0
	}
	if errors.Is(err, ErrConflict) {
		// Nothing was written, and nobody has found work: the window that has passed
		// still counts, the looks do not. After any other error nobody knows whether the
		// target was at zero meanwhile.
		m.state = before
		m.state.CheckedAt = time.Time{}
	}
	return m.failed(t, idle.Sleep, err)
}

// text is what keeps a target from going to zero, for people.
func text(blockers []idle.Blocker) string {
	texts := make([]string, 0, len(blockers))
	for _, b := range blockers {
		texts = append(texts, b.Text)
	}
	return strings.Join(texts, "; ")
}

// wake scales from zero, when it is this target's turn.
func (m *Machine) wake(ctx context.Context, t target.Target, seen Scale, d idle.Decision) time.Duration {
	if wait := m.awaitTurn(t); wait > 0 {
		return wait
	}
	if err := m.parts.Scales.Set(ctx, t, seen, d.Replicas); err != nil {
		return m.failed(t, idle.Wake, err)
	}
	m.turn, m.failures = nil, 0
	if t.StaysAtZero() {
		d.Reason += "; the HPA's policies of scaling up would never leave zero, and go on from here"
	}
	now := m.parts.Now()
	m.parts.Journal.Woke(t, d.Replicas, d, now.Sub(m.state.ShortSince), now)
	return 0
}

// awaitTurn is how long it is until a wake may be written, which is said once.
func (m *Machine) awaitTurn(t target.Target) time.Duration {
	now := m.parts.Now()
	if m.turn != nil {
		return m.turn.DelayFrom(now)
	}
	m.turn = m.parts.Turns.ReserveN(now, 1)
	wait := m.turn.DelayFrom(now)
	if wait > 0 {
		m.parts.Journal.Delayed(t, wait, now)
	}
	return wait
}

// giveUpTurn leaves the turn of a wake that is not due any more to others.
func (m *Machine) giveUpTurn(now time.Time) {
	if m.turn != nil {
		m.turn.CancelAt(now)
		m.turn = nil
	}
}

// raise scales further up, if no target that still sleeps waits for its turn.
func (m *Machine) raise(ctx context.Context, t target.Target, seen Scale, d idle.Decision) time.Duration {
	if !m.parts.Turns.AllowN(m.parts.Now(), 1) {
		return d.After
	}
	if err := m.parts.Scales.Set(ctx, t, seen, d.Replicas); err != nil {
		return m.failed(t, idle.Raise, err)
	}
	m.failures = 0
	m.parts.Journal.Raised(t, seen.Replicas, d.Replicas, d, m.parts.Now())
	return d.After
}

// failed reports a write that did not succeed, and returns when to try again.
func (m *Machine) failed(t target.Target, action idle.Action, err error) time.Duration {
	now := m.parts.Now()
	if refused, ok := errors.AsType[*RefusedError](err); ok && action == idle.Sleep {
		m.parts.Journal.Refused(t, idle.Work, refused.Message, now)
		return firstPause
	}
	if errors.Is(err, ErrConflict) && m.failures == 0 {
		m.failures++ // the first is common: whoever wrote was faster
		return conflictPause
	}
	m.parts.Journal.Failed(t, action, err, now)
	pause := min(firstPause<<min(m.failures, 5), lastPause)
	m.failures++
	return pause
}
