package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// VictimsPath is where Victims is to be served: what the webhook victims.celery-hpa.io
// of the chart asks.
const VictimsPath = "/admission/victims"

// markBudget bounds the writing of costs. The API server waits for 2 s (timeoutSeconds
// of the webhook) and then goes on without an answer, so that what is written later
// helps nobody.
const markBudget = 1500 * time.Millisecond

// Fleets gives a fleet as it is now, from memory. An error says that nothing is known
// of it.
type Fleets interface {
	Fleet(ref fleet.Ref) (fleet.Fleet, error)
}

// Targets gives what HPAs with our metrics scale in a namespace, from memory.
type Targets interface {
	Targets(namespace string) []target.Target
}

// Marker writes which pods of a fleet are to go last; see drain.Marker.
type Marker interface {
	Mark(ctx context.Context, f fleet.Fleet) error
}

// Victims answers AdmissionReviews (admission.k8s.io/v1) of scale-downs of Deployments.
// It always allows: a worker that cannot be spared ends as it would without
// celery-hpa. Make it with NewVictims. It is safe for concurrent use.
//
// The API server shows no credential to a webhook. Whoever else asks learns nothing
// but how many workers are busy, and can cause no more than that costs are written
// that are true.
type Victims struct {
	fleets  Fleets
	targets Targets
	marker  Marker
	log     *slog.Logger
	metrics *metrics
}

var _ http.Handler = (*Victims)(nil)

// NewVictims makes a handler for VictimsPath. It fails if its metrics cannot be
// registered.
func NewVictims(fleets Fleets, targets Targets, marker Marker, log *slog.Logger, registry prometheus.Registerer) (*Victims, error) {
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	return &Victims{fleets: fleets, targets: targets, marker: marker, log: log, metrics: m}, nil
}

// ServeHTTP implements http.Handler. It answers within the budget for writing costs,
// or as soon as the request is given up.
func (v *Victims) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, refused := decodeReview(w, r)
	if refused != nil {
		http.Error(w, refused.reason, refused.status)
		return
	}
	down, isOne := scaleDownOf(request)
	if !isOne || !v.isTarget(down.ref) {
		v.metrics.count(ignored)
		allow(w, request.UID, nil)
		return
	}
	allow(w, request.UID, v.prepare(r.Context(), down))
}

func (v *Victims) isTarget(ref fleet.Ref) bool {
	return slices.ContainsFunc(v.targets.Targets(ref.Namespace), func(t target.Target) bool {
		scaled, ok := drain.FleetOf(t)
		return ok && scaled == ref
	})
}

// prepare marks the victims of a scale-down, and returns what its author should know.
func (v *Victims) prepare(ctx context.Context, down scaleDown) []string {
	log := v.log.With("fleet", down.ref.String(), "from", down.from, "to", down.to, "user", down.user)
	f, err := v.fleets.Fleet(down.ref)
	if err == nil && !f.Heard {
		err = errors.New("no worker of it was ever heard")
	}
	if err != nil {
		v.metrics.count(unknown)
		log.Warn("Scaling down without knowing who is busy", "error", err)
		return nil
	}
	busy := busyOf(f)
	if down.dryRun {
		v.metrics.count(dryRun)
	} else {
		v.mark(ctx, f, log.With("busy", busy))
	}
	return warnings(down, busy)
}

// mark writes the costs, within the budget.
func (v *Victims) mark(ctx context.Context, f fleet.Fleet, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, markBudget)
	defer cancel()
	began := time.Now()
	err := v.marker.Mark(ctx, f)
	v.metrics.duration.Observe(time.Since(began).Seconds())
	if err != nil {
		v.metrics.count(failed)
		log.Warn("Scaling down without having marked every busy worker", "error", err)
		return
	}
	v.metrics.count(marked)
	log.Info("Marked the busy workers before a scale-down")
}

// busyOf counts the pods that would lose a task, as far as is known.
func busyOf(f fleet.Fleet) int {
	n := 0
	for _, m := range f.Members {
		if m.State.IsBusy() && !m.Terminating {
			n++
		}
	}
	return n
}

// warnings tells a person what the scale-down means for tasks, if it means anything.
// The API server may cut what has more than 256 characters.
func warnings(down scaleDown, busy int) []string {
	lost := busy - int(down.to)
	if lost <= 0 || slices.Contains(HPAUsers(), down.user) {
		return nil
	}
	return []string{fmt.Sprintf(
		"celery-hpa: %d pods of %s may be executing tasks, and %d stay: at least %d of them will be told to end. They finish their tasks unless these take longer than terminationGracePeriodSeconds.",
		busy, down.ref, down.to, lost)}
}
