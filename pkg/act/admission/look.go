package admission

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// lookBudget bounds a look. The API server waits for 3 s (timeoutSeconds of the
	// webhooks zero and notice): what is known after 2 s still arrives in time.
	lookBudget = 2 * time.Second
	// mostLooks is how many looks there are at once. Anybody in the cluster can ask a
	// webhook, and a look costs the broker and the workers a question.
	mostLooks = 32
)

// Looker looks at a target afresh.
type Looker interface {
	// Look asks the brokers and the workers of a target and returns what is known
	// then. It blocks for two seconds at most, and no longer than ctx; what could not
	// be read by then is unknown.
	Look(ctx context.Context, t target.Target) idle.Observation
}

// ZeroTargets gives the targets of HPAs that ask for zero, from memory; see
// target.Watcher.
type ZeroTargets interface {
	OptedIn() []target.Target
	// Synced tells whether none is missing.
	Synced() bool
}

// Looks is what Zero and Notice have in common: they look at the same targets in the
// same way, and differ in what they answer. Make it with NewLooks. It is safe for
// concurrent use.
type Looks struct {
	looker    Looker
	targets   ZeroTargets
	resources Resources
	log       *slog.Logger
	metrics   *reviews
	turns     chan struct{} // holds one token for each look that there is
}

// NewLooks makes what NewZero and NewNotice need. Without resources (nil) there are
// Deployments and StatefulSets alone. It fails if its metrics cannot be registered.
func NewLooks(looker Looker, targets ZeroTargets, resources Resources, log *slog.Logger, registry prometheus.Registerer) (*Looks, error) {
	m, err := newReviews(registry)
	if err != nil {
		return nil, err
	}
	return &Looks{
		looker: looker, targets: targets, resources: resources, log: log,
		metrics: m, turns: make(chan struct{}, mostLooks),
	}, nil
}

// finding is what is found out about a request.
type finding struct {
	// result is resultIdle if nothing keeps the target from zero, ignored if the
	// request is no step of one of ours to zero; all others keep it.
	result result
	// target is that of the request; there is none if it is ignored, and there may be
	// none if it is unknown.
	target target.Target
	cause  idle.Cause
	// reasons are clauses for people: what keeps the target from zero.
	reasons []string
}

// review finds out about a request, and counts it for the named webhook. It blocks
// for as long as a look may take.
func (l *Looks) review(ctx context.Context, webhook string, request *admissionv1.AdmissionRequest) finding {
	ctx, cancel := context.WithTimeout(ctx, lookBudget)
	defer cancel()
	began := time.Now()
	f := l.find(ctx, request)
	if f.result == ignored {
		l.metrics.count(webhook, ignored)
		return f
	}
	l.metrics.duration.WithLabelValues(webhook).Observe(time.Since(began).Seconds())
	if isDryRun(request) {
		l.metrics.count(webhook, dryRun)
	} else {
		l.metrics.count(webhook, f.result)
	}
	return f
}

// find is without effects, but for the look.
func (l *Looks) find(ctx context.Context, request *admissionv1.AdmissionRequest) finding {
	synced := l.targets.Synced() // before the targets: then none is missing
	targets := l.targetsOf(request)
	if len(targets) == 0 {
		if synced {
			return finding{result: ignored}
		}
		return finding{result: unknown, cause: idle.Unknown, reasons: []string{"celery-hpa does not know all HorizontalPodAutoscalers yet"}}
	}
	f := finding{target: targets[0]}
	toZero, err := isStepToZero(request)
	switch paused := slices.IndexFunc(targets, func(t target.Target) bool { return t.Zero.Paused }); {
	case err != nil:
		f.result, f.cause, f.reasons = unknown, idle.Unknown, []string{"the numbers of replicas cannot be read"}
	case !toZero:
		f.result = ignored
	case paused >= 0:
		f.target = targets[paused]
		f.result, f.cause, f.reasons = resultPaused, idle.Paused, []string{pausedReason(f.target)}
	default:
		f.judge(l.blockers(ctx, targets))
	}
	return f
}

// targetsOf finds the targets that a request is about: none, or one for each HPA. A
// kind whose resource cannot be named may be the one.
func (l *Looks) targetsOf(request *admissionv1.AdmissionRequest) []target.Target {
	var found []target.Target
	for _, t := range Guarded(l.targets) {
		if t.Namespace != request.Namespace || t.Name != request.Name {
			continue
		}
		resource, err := ResourceOf(l.resources, t)
		if err != nil || resource.Group == request.Resource.Group && resource.Resource == request.Resource.Resource {
			found = append(found, t)
		}
	}
	return found
}

// Guarded returns the targets that the webhooks are about: those that ask for zero and
// name a queue to look at.
func Guarded(targets ZeroTargets) []target.Target {
	var found []target.Target
	for _, t := range targets.OptedIn() {
		if t.Zero.Wanted && slices.ContainsFunc(t.Signals, ofQueue) {
			found = append(found, t)
		}
	}
	return found
}

func ofQueue(s target.Signal) bool {
	return queue.IsMetric(s.Metric)
}

// blockers looks at the targets. It returns nothing only if looks that were in time
// have found nothing.
func (l *Looks) blockers(ctx context.Context, targets []target.Target) []idle.Blocker {
	var found []idle.Blocker
	for _, t := range targets {
		found = append(found, l.blockersOf(ctx, t)...)
	}
	if len(found) == 0 && ctx.Err() != nil {
		return unknownBecause("no answer within " + lookBudget.String())
	}
	return found
}

// blockersOf looks at one target, when it is its turn. A panic is no proof of
// idleness.
func (l *Looks) blockersOf(ctx context.Context, t target.Target) (found []idle.Blocker) {
	select {
	case l.turns <- struct{}{}:
	case <-ctx.Done():
		return unknownBecause("too many are being looked at")
	}
	defer func() {
		<-l.turns
		if cause := recover(); cause != nil {
			l.log.Error("A look at a target has panicked", "target", t.String(), "error", cause, "stack", string(debug.Stack()))
			found = unknownBecause("an error in celery-hpa, which its log shows")
		}
	}()
	return idle.Blockers(l.looker.Look(ctx, t))
}

func unknownBecause(reason string) []idle.Blocker {
	return []idle.Blocker{{Cause: idle.Unknown, Subject: "the target", Text: "the target could not be looked at: " + reason}}
}

// judge concludes from what keeps a target from zero. What is not known goes before
// what is: it is what has to be seen to.
func (f *finding) judge(blockers []idle.Blocker) {
	if len(blockers) == 0 {
		f.result = resultIdle
		return
	}
	f.result, f.cause = work, blockers[0].Cause
	for _, b := range blockers {
		if b.Cause == idle.Unknown {
			f.result, f.cause = unknown, idle.Unknown
		}
		f.reasons = append(f.reasons, b.Text)
	}
}

// isStepToZero tells whether a request scales from above zero to zero, be it by the
// object itself or by its scale.
func isStepToZero(r *admissionv1.AdmissionRequest) (bool, error) {
	if r.Operation != admissionv1.Update || r.SubResource != "" && r.SubResource != "scale" {
		return false, nil
	}
	from, errFrom := replicasOf(r.OldObject.Raw)
	to, errTo := replicasOf(r.Object.Raw)
	return from > 0 && to == 0, errors.Join(errFrom, errTo)
}

func isDryRun(r *admissionv1.AdmissionRequest) bool { return r.DryRun != nil && *r.DryRun }
