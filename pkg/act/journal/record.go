package journal

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// How many decisions are kept: mostEntries of each target, but not more than allEntries
// in all, of which each target has the same share, and leastEntries at the least. Full
// ones need some 2 KB each (BenchmarkFullJournal).
const (
	mostEntries  = 50
	leastEntries = 10
	allEntries   = 10_000
)

// share is how many decisions are kept of each of so many targets.
func share(targets int) int {
	return max(leastEntries, min(mostEntries, allEntries/max(targets, 1)))
}

// State is what holds for a target now.
type State struct {
	// Namespace and HPA name the HorizontalPodAutoscaler.
	Namespace string `json:"namespace"`
	HPA       string `json:"hpa"`
	// APIVersion, Kind and Name are of what it scales.
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	// WindowSeconds is for how long there must have been nothing to do; Paused holds
	// the target at its size.
	WindowSeconds float64 `json:"windowSeconds"`
	Paused        bool    `json:"paused"`
	// Mistake says why nothing is done; empty if all is well.
	Mistake string `json:"mistake,omitempty"`
	// Since is since when the same is decided, with the same reason.
	Since time.Time `json:"since,omitzero"`
	// AsleepSince is since when the target is at zero, as far as it was seen; zero
	// while it is awake, or that is not known yet.
	AsleepSince time.Time `json:"asleepSince,omitzero"`
	// IdleWindowRemainingSeconds is what is left of the idle window; nil while none
	// runs.
	IdleWindowRemainingSeconds *float64 `json:"idleWindowRemainingSeconds,omitempty"`
	// Latest is the latest decision with what was known then, nil before the first.
	Latest *Entry `json:"latest,omitempty"`
}

// record is what is known of one target.
type record struct {
	target  target.Target
	mistake string
	entries []Entry // the oldest first

	// The latest decision and what was known then; decided is zero before the first.
	observed idle.Observation
	decision idle.Decision
	decided  time.Time

	asleepSince time.Time
	said        saying // the latest event
	counts      counts // nil before the first
}

// count counts one more.
func (r *record) count(metric *prometheus.Desc, label string) {
	if r.counts == nil {
		r.counts = counts{}
	}
	r.counts[series{metric, label}]++
}

// decide takes a decision down, of which most are kept, and reports whether it differs
// from the one before.
func (r *record) decide(o idle.Observation, d idle.Decision, at time.Time, most int) bool {
	before := r.decision
	differs := r.decided.IsZero() || before.Action != d.Action || before.Cause != d.Cause || before.Reason != d.Reason
	r.observed, r.decision, r.decided, r.mistake = o, d, at, ""
	if o.ReplicasErr == nil {
		r.resized(o.Replicas, at)
	}
	if differs {
		r.keep(most - 1)
		r.entries = append(r.entries, newEntry(o, d, at))
	}
	return differs
}

// keep drops all decisions but the latest most.
func (r *record) keep(most int) {
	r.entries = slices.Delete(r.entries, 0, max(len(r.entries)-most, 0))
}

// resized notes the size.
func (r *record) resized(replicas int32, at time.Time) {
	switch {
	case replicas != 0:
		r.asleepSince = time.Time{}
	case r.asleepSince.IsZero():
		r.asleepSince = at
	}
}

// outcome says of the latest entry what has become of it.
func (r *record) outcome(text string) {
	if n := len(r.entries); n > 0 {
		r.entries[n-1].Outcome = text
	}
}

// remaining is what is left of the idle window; false if none runs.
func (r *record) remaining(now time.Time) (time.Duration, bool) {
	if r.decision.Remaining <= 0 {
		return 0, false
	}
	return max(r.decision.Remaining-now.Sub(r.decided), 0), true
}

// state is what holds now.
func (r *record) state(now time.Time) State {
	t := r.target
	s := State{
		Namespace: t.Namespace, HPA: t.HPA, APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name,
		WindowSeconds: t.Zero.Window.Seconds(), Paused: t.Zero.Paused,
		Mistake: r.mistake, AsleepSince: r.asleepSince,
	}
	if left, runs := r.remaining(now); runs {
		seconds := left.Seconds()
		s.IdleWindowRemainingSeconds = &seconds
	}
	if !r.decided.IsZero() {
		last := r.entries[len(r.entries)-1]
		latest := newEntry(r.observed, r.decision, r.decided)
		latest.Outcome = last.Outcome
		s.Since, s.Latest = last.At, &latest
	}
	return s
}
