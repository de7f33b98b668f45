package idle

import (
	"fmt"
	"slices"
	"time"
)

// Decide says what to do about a target of which o is known at now, and what to
// remember of it. After a Check it is to be followed by Confirm.
func Decide(spec Spec, st State, o Observation, now time.Time) (State, Decision) {
	if o.ReplicasErr != nil {
		return st.anew().unsure(now), Decision{Cause: Unknown, Reason: fmt.Sprintf("the size of the target is not known: %v", o.ReplicasErr), After: watchful}
	}
	st = st.see(o, now)
	switch {
	case spec.Paused:
		return st.anew().enough(), Decision{Cause: Paused, Reason: "paused by annotation", After: drowsy}
	case o.Replicas == 0:
		return asleep(spec, st.anew(), o, now)
	case st.isRising(o, now):
		return rising(spec, st.anew(), o, now)
	}
	return awake(spec, st.enough(), o, now)
}

// Confirm says whether a target goes to zero, by an observation that was made afresh
// because Decide had asked for a Check. The first one that finds nothing to do asks
// for a second, CheckGap later; the second for Sleep. Anything that is found begins
// the idle window anew.
func Confirm(spec Spec, st State, o Observation, now time.Time) (State, Decision) {
	if blockers := Blockers(o); len(blockers) > 0 {
		cause, reason := why(blockers)
		return st.anew(), Decision{Cause: cause, Reason: "at a second look " + reason, After: watchful}
	}
	if since := now.Sub(st.CheckedAt); st.CheckedAt.IsZero() || since < CheckGap || since > checkAge {
		st.CheckedAt = now
		return st, Decision{Cause: Idle, Reason: "idle for long enough: looking a second time", After: CheckGap}
	}
	return st.anew(), Decision{Action: Sleep, Cause: Idle, Reason: fmt.Sprintf("idle for %s", spec.Window), After: watchful}
}

// see takes in the size of the target.
func (st State) see(o Observation, now time.Time) State {
	if st.Seen && st.Replicas == 0 && o.Replicas > 0 {
		st = st.enough()
		st.WokeAt, st.RaisedAt = now, now
	}
	if st.Replicas > 0 && o.Replicas == 0 {
		st = st.enough() // it was of a raise
	}
	st.Seen, st.Replicas = true, o.Replicas
	if o.Replicas > 0 {
		st.AsleepSince, st.EmptySince = time.Time{}, time.Time{}
		return st
	}
	if st.AsleepSince.IsZero() {
		st.AsleepSince = now
	}
	if o.Pods > 0 {
		st.EmptySince = time.Time{}
	} else if st.EmptySince.IsZero() {
		st.EmptySince = now
	}
	return st
}

// anew forgets the idle window.
func (st State) anew() State {
	st.IdleSince, st.Samples, st.LastSample, st.CheckedAt = time.Time{}, 0, time.Time{}, time.Time{}
	return st
}

// asleep decides about a target at zero.
func asleep(spec Spec, st State, o Observation, now time.Time) (State, Decision) {
	size, cause, reason := arrived(spec, st, o, now)
	switch {
	case size == 0 && isBlind(o):
		return st.unsure(now), Decision{Cause: cause, Reason: reason, After: drowsy}
	case size == 0:
		return st.enough(), Decision{Cause: cause, Reason: reason, After: drowsy}
	}
	st.ShortAt = countedAt(o)
	return st.grow(Decision{Action: Wake, Replicas: size, Cause: cause, Reason: reason}, o.Leads, StandbyDelay, now)
}

// countedAt is when messages that wait were counted last; zero where none waits.
func countedAt(o Observation) time.Time {
	var last time.Time
	for _, q := range o.Queues {
		if c := q.Depth.Backlog; c.Err == nil && c.N > 0 && c.At.After(last) {
			last = c.At
		}
	}
	return last
}

// arrived says to which size a target at zero is to wake, 0 for not at all, and why:
// a message that waits goes before one that is stranded, and that before all else.
func arrived(spec Spec, st State, o Observation, now time.Time) (int32, Cause, string) {
	found := map[Cause]string{} // the last queue of each
	for _, q := range o.Queues {
		found[st.judge(q, now)] = q.Name
	}
	for _, kind := range []struct {
		cause  Cause
		size   int32
		reason string
	}{
		{Arrived, spec.bound(o), "messages wait in queue %s"},
		{Stranded, spec.Floor, "a message of queue %s is in flight, and there is no worker"},
		{Ending, 0, "messages of queue %s are in flight in pods that end"},
		{Unknown, 0, "not everything is known of queue %s"},
	} {
		if name, is := found[kind.cause]; is {
			return kind.size, kind.cause, fmt.Sprintf(kind.reason, name)
		}
	}
	if o.QueuesErr != nil {
		return 0, Unknown, fmt.Sprintf("not every queue is known: %v", o.QueuesErr)
	}
	return 0, Asleep, "asleep: no message waits"
}

// judge says what a queue of a target at zero holds.
func (st State) judge(q Queue, now time.Time) Cause {
	switch backlog, inFlight := q.Depth.Backlog, q.Depth.InFlight; {
	case backlog.Err == nil && backlog.N > 0:
		return Arrived
	case backlog.Err != nil || inFlight.Err != nil:
		return Unknown
	case inFlight.N > 0 && st.isEmpty(inFlight.At, now):
		return Stranded
	case inFlight.N > 0:
		return Ending
	}
	return Asleep
}

// isEmpty reports whether a count of that time is of a target that has been without
// pods for long enough.
func (st State) isEmpty(counted, now time.Time) bool {
	return !st.EmptySince.IsZero() && now.Sub(st.EmptySince) >= strandedAfter && counted.After(st.EmptySince)
}

// bound is the size that the HPA would compute, or its floor where that is not known
// or less.
func (s Spec) bound(o Observation) int32 {
	if o.WantedErr != nil {
		return s.Floor
	}
	return min(max(o.Wanted, s.Floor), max(s.Ceiling, 1))
}

// isRising reports whether the target has woken so recently that messages may still be
// arriving, and more workers are wanted than there are.
func (st State) isRising(o Observation, now time.Time) bool {
	return !st.WokeAt.IsZero() && now.Sub(st.WokeAt) < RaiseFor && o.WantedErr == nil && o.Wanted > o.Replicas
}

// rising decides about such a target.
func rising(spec Spec, st State, o Observation, now time.Time) (State, Decision) {
	size := spec.bound(o)
	if size <= o.Replicas {
		return st.enough(), Decision{Cause: Work, Reason: "as many workers as the HPA allows", After: watchful}
	}
	if wait := RaiseGap - now.Sub(st.RaisedAt); wait > 0 {
		return st.short(now), Decision{Cause: Arrived, Reason: "more messages have arrived", After: wait}
	}
	d := Decision{Action: Raise, Replicas: size, Cause: Arrived, Reason: "more messages have arrived"}
	st, d = st.grow(d, o.Leads, RaiseGap+StandbyDelay, now)
	if d.Action == Raise {
		st.RaisedAt = now
	}
	return st, d
}

// grow lets a wake or a raise pass: at once on the replica that leads, after some time
// on the others.
func (st State) grow(d Decision, leads bool, delay time.Duration, now time.Time) (State, Decision) {
	st = st.short(now)
	if wait := delay - now.Sub(st.ShortSince); !leads && wait > 0 {
		return st, Decision{Cause: Standby, Reason: d.Reason + ": the replica of celery-hpa that leads goes first", After: wait}
	}
	d.After = RaiseGap
	return st, d
}

// short notes that more workers are wanted than there are.
func (st State) short(now time.Time) State {
	switch {
	case st.ShortSince.IsZero():
		st.ShortSince = now
	case !st.UnsureSince.IsZero():
		st.ShortSince = st.ShortSince.Add(now.Sub(st.UnsureSince))
	}
	st.UnsureSince = time.Time{}
	return st
}

// unsure notes that it is not known whether the messages are still there for which workers
// were wanted at zero. If they waited, and were counted when the last pod had gone, they
// are: nobody is there who could have taken them. Else those that are found later may be
// others.
func (st State) unsure(now time.Time) State {
	switch {
	case st.ShortSince.IsZero() || !st.UnsureSince.IsZero():
	case st.EmptySince.IsZero() || st.ShortAt.Before(st.EmptySince):
		return st.enough()
	default:
		st.UnsureSince = now
	}
	return st
}

// enough notes that no more workers are wanted than there are.
func (st State) enough() State {
	st.ShortSince, st.ShortAt, st.UnsureSince = time.Time{}, time.Time{}, time.Time{}
	return st
}

// isBlind reports whether a message may wait of which nothing is known.
func isBlind(o Observation) bool {
	return o.QueuesErr != nil || slices.ContainsFunc(o.Queues, func(q Queue) bool { return q.Depth.Backlog.Err != nil })
}

// awake decides about a target with workers.
func awake(spec Spec, st State, o Observation, now time.Time) (State, Decision) {
	if spec.Foreign != "" {
		reason := fmt.Sprintf("the HPA also scales on %s, of which celery-hpa knows nothing: it never concludes that there is nothing to do", spec.Foreign)
		return st.anew(), Decision{Cause: Foreign, Reason: reason, After: watchful}
	}
	if blockers := Blockers(o); len(blockers) > 0 {
		cause, reason := why(blockers)
		return st.anew(), Decision{Cause: cause, Reason: reason, After: watchful}
	}
	if spec.HPASleeps {
		return st.anew(), Decision{Cause: HPA, Reason: "idle: the HPA itself goes to zero (minReplicas: 0)", After: watchful}
	}
	st = st.count(o, now)
	elapsed := now.Sub(st.IdleSince)
	if remaining := spec.Window - elapsed; remaining > 0 {
		return st, Decision{Cause: Window, Reason: fmt.Sprintf("idle, but not for %s yet", spec.Window), After: min(remaining, watchful), Remaining: remaining}
	}
	if missing := st.gaps(o.Interval, elapsed); missing != "" {
		return st.anew(), Decision{Cause: Gaps, Reason: missing, After: watchful}
	}
	return st, ripe(spec, st, o, now)
}

// count takes in a sample of an idle target.
func (st State) count(o Observation, now time.Time) State {
	at := sampledAt(o)
	switch {
	case st.IdleSince.IsZero():
		st.IdleSince, st.Samples, st.LastSample = now, 1, at
	case at.After(st.LastSample):
		st.Samples++
		st.LastSample = at
	}
	return st
}

// sampledAt is when the backlog was counted that was counted first.
func sampledAt(o Observation) time.Time {
	var at time.Time
	for i, q := range o.Queues {
		if i == 0 || q.Depth.Backlog.At.Before(at) {
			at = q.Depth.Backlog.At
		}
	}
	return at
}

// gaps says that too many samples are missing, if they are. The numbers are left out,
// so that it stays the same.
func (st State) gaps(interval, elapsed time.Duration) string {
	expected := float64(elapsed) / float64(max(interval, time.Millisecond))
	if float64(st.Samples) >= leastSamples*expected-1 { // one may still be on its way
		return ""
	}
	return fmt.Sprintf("idle, but more than %.0f %% of the samples are missing: the window begins anew", 100*(1-leastSamples))
}

// ripe decides about a target that was idle for the whole window.
func ripe(spec Spec, st State, o Observation, now time.Time) Decision {
	since := now.Sub(st.CheckedAt)
	checked := !st.CheckedAt.IsZero() && since <= checkAge
	switch {
	case o.Replicas != spec.Floor:
		return Decision{Cause: Above, Reason: fmt.Sprintf("idle: the HPA is to bring the size to %d first", spec.Floor), After: watchful}
	case !o.Leads:
		return Decision{Cause: Standby, Reason: "idle: the replica of celery-hpa that leads puts it to sleep", After: watchful}
	case checked && since < CheckGap:
		return Decision{Cause: Idle, Reason: "idle for long enough: looking a second time", After: CheckGap - since}
	}
	return Decision{Action: Check, Cause: Idle, Reason: "idle for long enough: looking afresh", After: watchful}
}
