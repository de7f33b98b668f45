package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/journal/internal/events"
	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// Leader tells whether this replica of celery-hpa leads; see leader.Elector.
type Leader interface {
	Leads() bool
}

// Journal implements zeroscaler.Journal. Make it with New. It is safe for concurrent
// use, and none of its methods but Run waits for anything. An observation that it was
// given must not be changed any more.
type Journal struct {
	events  *events.Writer
	leader  Leader
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	records map[name]*record
}

var _ zeroscaler.Journal = (*Journal)(nil)

// name is that of an HPA.
type name struct{ namespace, hpa string }

func nameOf(t target.Target) name { return name{t.Namespace, t.HPA} }

// New makes a journal without entries. It needs the rights to create and patch events.
// Mistakes are every replica's to know and the leader's to make an event of. New fails
// if the metrics cannot be registered.
func New(client corev1client.EventsGetter, leader Leader, log *slog.Logger, registry prometheus.Registerer) (*Journal, error) {
	j := &Journal{
		events: events.NewWriter(client, log), leader: leader, log: log,
		metrics: newMetrics(), records: map[name]*record{},
	}
	if err := registry.Register(newCollector(j)); err != nil {
		return nil, fmt.Errorf("register the metrics of going to zero: %w", err)
	}
	return j, nil
}

// Run writes events until ctx is done, then those that are left, for a second at the
// most, and returns nil. It blocks.
func (j *Journal) Run(ctx context.Context) error {
	j.events.Run(ctx)
	return nil
}

// Decided implements zeroscaler.Journal.
func (j *Journal) Decided(t target.Target, o idle.Observation, d idle.Decision, at time.Time) {
	if j.decide(t, o, d, at) {
		j.logger(t).Debug("Decided", "action", d.Action.String(), "cause", string(d.Cause), "reason", d.Reason)
	}
}

func (j *Journal) decide(t target.Target, o idle.Observation, d idle.Decision, at time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.record(t).decide(o, d, at, share(len(j.records)))
}

// Slept implements zeroscaler.Journal.
func (j *Journal) Slept(t target.Target, from int32, d idle.Decision, at time.Time) {
	j.logger(t).Info("Scaled to zero", "from", from, "reason", d.Reason)
	j.note(t, at, j.metrics.sleeps, fmt.Sprintf("scaled from %d to 0", from),
		normal(scaledToZero, "Scaled %s %s from %d to 0: %s", t.Kind, t.Name, from, d.Reason), 0)
}

// Woke implements zeroscaler.Journal.
func (j *Journal) Woke(t target.Target, to int32, d idle.Decision, waited time.Duration, at time.Time) {
	j.metrics.wakeSeconds.Observe(waited.Seconds())
	j.logger(t).Info("Woke up", "to", to, "waited", waited, "reason", d.Reason)
	j.note(t, at, j.metrics.wakes, fmt.Sprintf("scaled from 0 to %d after %s", to, waited.Round(time.Millisecond)),
		normal(wokenUp, "Scaled %s %s from 0 to %d, %s after work was known of: %s", t.Kind, t.Name, to, waited.Round(time.Millisecond), d.Reason), to)
}

// Raised implements zeroscaler.Journal.
func (j *Journal) Raised(t target.Target, from, to int32, d idle.Decision, at time.Time) {
	j.logger(t).Info("Raised after a wake", "from", from, "to", to, "reason", d.Reason)
	j.note(t, at, j.metrics.raises, fmt.Sprintf("scaled from %d to %d", from, to),
		normal(raisedAfterWake, "Scaled %s %s from %d to %d: %s", t.Kind, t.Name, from, to, d.Reason), to)
}

// note takes a write down that has succeeded.
func (j *Journal) note(t target.Target, at time.Time, counter *prometheus.Desc, outcome string, s saying, replicas int32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.record(t)
	r.count(counter, "")
	r.outcome(outcome)
	r.resized(replicas, at)
	j.say(r, s, at)
}

// Refused implements zeroscaler.Journal.
func (j *Journal) Refused(t target.Target, cause idle.Cause, message string, at time.Time) {
	j.logger(t).Info("Stays above zero after a look at the last moment", "cause", string(cause), "reason", message)
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.record(t)
	r.count(j.metrics.refusals, string(cause))
	r.outcome("refused: " + message)
	j.say(r, refusal(t, cause, message), at)
}

// Failed implements zeroscaler.Journal. A write that was given up since the program
// ends is none that has failed.
func (j *Journal) Failed(t target.Target, action idle.Action, err error, at time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	j.logger(t).Warn("Could not scale", "action", action.String(), "error", err)
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.record(t)
	r.count(j.metrics.failures, action.String())
	r.outcome("failed: " + err.Error())
	j.say(r, failure(action, err), at)
}

// Mistaken implements zeroscaler.Journal. It may be told of the same mistake again and
// again.
func (j *Journal) Mistaken(t target.Target, at time.Time) {
	if t.Zero.Mistake == nil {
		return
	}
	if text := t.Zero.Mistake.Error(); j.mistake(t, text, at) {
		j.logger(t).Warn("Does not go to zero, although its HPA asks for it", "error", text)
	}
}

// mistake reports whether this one is new. Nothing is known of the target meanwhile.
func (j *Journal) mistake(t target.Target, text string, at time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.record(t)
	isNew := r.mistake != text
	*r = record{target: t, mistake: text, said: r.said, entries: r.entries, counts: r.counts}
	if j.leader.Leads() {
		j.say(r, mistake(text), at)
	}
	return isNew
}

// Unserved says that an HPA scales on metrics of ours, and no broker serves its namespace.
// Every replica may be told of it: the event is the same, and made once.
func (j *Journal) Unserved(t target.Target, at time.Time) {
	s := unserved(t)
	j.logger(t).Warn("An HPA scales on metrics of a namespace that no broker serves", "metrics", t.Metrics)
	j.add(t, s, at, true)
}

// Delayed implements zeroscaler.Journal.
func (j *Journal) Delayed(t target.Target, wait time.Duration, at time.Time) {
	j.metrics.delayed.Inc()
	j.logger(t).Info("A wake waits for its turn, since many are due at once", "wait", wait)
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.record(t)
	r.outcome(fmt.Sprintf("waits for its turn, %s", wait.Round(time.Millisecond)))
	j.say(r, delay(t), at)
}

// Forget implements zeroscaler.Journal. It does nothing where another target has taken
// the place meanwhile.
func (j *Journal) Forget(t target.Target) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.records[nameOf(t)]; r != nil && isSame(r.target, t) {
		delete(j.records, nameOf(t))
	}
}

// record is that of a target, made when it is told of for the first time. j.mu is held.
func (j *Journal) record(t target.Target) *record {
	r := j.records[nameOf(t)]
	if r == nil || !isSame(r.target, t) {
		r = &record{}
		j.records[nameOf(t)] = r
		for _, other := range j.records {
			other.keep(share(len(j.records)))
		}
	}
	r.target = t
	return r
}

// isSame tells whether two targets are the same HPA scaling the same object, whatever
// else it says.
func isSame(a, b target.Target) bool {
	return a.UID == b.UID && nameOf(a) == nameOf(b) && a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name
}

// say makes an event, unless that was said before. j.mu is held.
func (j *Journal) say(r *record, s saying, at time.Time) {
	if s.repeats(r.said, at) {
		return
	}
	s.at = at
	r.said = s
	j.add(r.target, s, at, false)
}

func (j *Journal) add(t target.Target, s saying, at time.Time, once bool) {
	j.events.Add(events.Event{
		Namespace: t.Namespace, HPA: t.HPA, UID: t.UID,
		Type: s.kind, Reason: s.reason, Message: s.message, At: at, Once: once,
	})
}

func (j *Journal) logger(t target.Target) *slog.Logger {
	return j.log.With("hpa", t.Namespace+"/"+t.HPA, "target", t.String())
}

// All returns the state of each target, sorted by namespace and HPA.
func (j *Journal) All() []State {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	states := make([]State, 0, len(j.records))
	for _, r := range j.records {
		states = append(states, r.state(now))
	}
	slices.SortFunc(states, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.HPA, b.HPA))
	})
	return states
}

// Entries returns the latest decisions about the target of an HPA, at most 50 and fewer
// with more than 200 targets, the oldest first; nil if nothing is known of it.
func (j *Journal) Entries(namespace, hpa string) []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.records[name{namespace, hpa}]; r != nil {
		return slices.Clone(r.entries)
	}
	return nil
}

// detail is what is known of one target; false if nothing is.
func (j *Journal) detail(n name) (Detail, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.records[n]
	if r == nil {
		return Detail{}, false
	}
	return Detail{State: r.state(time.Now()), Decisions: slices.Clone(r.entries)}, true
}
