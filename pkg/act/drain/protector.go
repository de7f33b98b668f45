package drain

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

const (
	// interval is the time from one look at the fleets to the next.
	interval = time.Second
	// patchesPerSecond bounds what the API server is asked to write, over all fleets,
	// with as many at once. What is due and not done yet is due at the next look.
	patchesPerSecond = 20
	// turnTimeout bounds the patches of one look, should the API server hang.
	turnTimeout = 5 * time.Second
	// orphanAge is for how long a fleet that no HPA scales any more is looked for, to
	// take the protection off its pods.
	orphanAge = 10 * time.Minute
)

// Fleets gives a fleet as it is now, from memory. An error says that nothing is known
// of it.
type Fleets interface {
	Fleet(ref fleet.Ref) (fleet.Fleet, error)
}

// Targets gives what HPAs with our metrics scale, from memory: all that is known.
type Targets interface {
	All() []target.Target
}

// Protector keeps node autoscalers from pods that may execute a task, in the fleets
// whose HPA asks for it (v1alpha1.AnnotationProtectNodes), and from no longer than
// that. Make it with NewProtector. Several replicas of celery-hpa may each run one:
// they write the same.
type Protector struct {
	pods    corev1client.PodsGetter
	fleets  Fleets
	targets Targets
	log     *slog.Logger
	tokens  flowcontrol.RateLimiter

	seen    history                 // as of the latest look
	known   map[fleet.Ref]time.Time // when an HPA of ours last scaled it
	failing bool                    // whether the last patches failed
}

// NewProtector makes a protector. It needs the right to patch pods.
func NewProtector(pods corev1client.PodsGetter, fleets Fleets, targets Targets, log *slog.Logger) *Protector {
	return &Protector{
		pods: pods, fleets: fleets, targets: targets, log: log,
		tokens: flowcontrol.NewTokenBucketRateLimiter(patchesPerSecond, patchesPerSecond),
		seen:   history{}, known: map[fleet.Ref]time.Time{},
	}
}

// Run looks at the fleets once a second until ctx is done and then returns nil. It
// blocks. Failures are logged, and tried again at the next look.
func (p *Protector) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		p.Turn(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Turn is one look: it protects and releases what is due now, as far as the limit of
// patches goes. It blocks until the patches are made. It is not for concurrent use.
func (p *Protector) Turn(ctx context.Context, now time.Time) {
	due := p.due(now)
	sortByUrgency(due)
	var changes []change
	for _, s := range due {
		if !p.tokens.TryAccept() {
			break
		}
		changes = append(changes, s.change)
	}
	if len(changes) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	if err := applyAll(bounded, p.pods, changes); ctx.Err() == nil {
		p.report(err)
	}
}

// due are the steps of all fleets that are due now. Fleets of which nothing is known
// stay as they are, and so do those that are to be protected but have no worker that
// was ever heard: nobody could tell who of them is busy.
func (p *Protector) due(now time.Time) []step {
	before, after := p.seen, history{}
	p.seen = after
	wanted := p.wanted(now)
	var due []step
	for _, ref := range slices.SortedFunc(maps.Keys(p.known), compareRefs) {
		f, err := p.fleets.Fleet(ref)
		if err != nil || wanted[ref] && !f.Heard {
			continue
		}
		due = append(due, steps(f, wanted[ref], before, after, now)...)
	}
	return due
}

// wanted tells of each fleet that an HPA of ours scales whether it is to be protected:
// one HPA that asks for it is enough. It forgets fleets that nobody scales for long.
func (p *Protector) wanted(now time.Time) map[fleet.Ref]bool {
	wanted := map[fleet.Ref]bool{}
	for _, t := range p.targets.All() {
		if ref, ok := FleetOf(t); ok {
			wanted[ref] = wanted[ref] || t.ProtectNodes
			p.known[ref] = now
		}
	}
	maps.DeleteFunc(p.known, func(_ fleet.Ref, last time.Time) bool { return now.Sub(last) > orphanAge })
	return wanted
}

// report logs when patches begin to fail, and when they succeed again.
func (p *Protector) report(err error) {
	switch {
	case err != nil && !p.failing:
		p.log.Warn("Pods could not be protected from node autoscalers, or not be released; trying again", "error", err)
	case err == nil && p.failing:
		p.log.Info("Pods can be protected from node autoscalers again")
	}
	p.failing = err != nil
}

func compareRefs(a, b fleet.Ref) int { return strings.Compare(a.String(), b.String()) }
