package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// What is kept up to date, as in the chart.
const (
	configurationName = "celery-hpa"
	victimsWebhook    = "victims.celery-hpa.io"
)

const (
	// checkInterval is how often the object is compared although no target has
	// changed: somebody may have replaced it.
	checkInterval = 10 * time.Second
	// settling is how long a change of targets waits for those that come with it, so
	// that a hundred HPAs are one write.
	settling = time.Second
	// checkTimeout bounds one comparison, with its write.
	checkTimeout = 10 * time.Second
	// attempts is how often a write is tried that another one has come before.
	attempts = 5
)

// errAbsent says that the webhook is not installed, which is nobody's fault.
var errAbsent = errors.New("the webhook is not installed")

// KnownTargets gives what all HPAs with our metrics scale, and tells of changes; see
// target.Watcher.
type KnownTargets interface {
	All() []target.Target
	Synced() bool
	Changed() <-chan struct{}
}

// Keeper keeps the API server asking about our targets only: it writes which
// they are into the webhooks of the ValidatingWebhookConfiguration celery-hpa, and
// nothing else. Make it with NewKeeper.
//
// Of the webhook victims it keeps the match condition "targets". Of the webhooks zero
// and notice, if it is to guard them, it keeps the conditions "targets" and "users",
// and the rules: without rules a webhook matches nothing.
//
// Of several replicas of celery-hpa one is to keep it (see OnlyWhile): two of different
// versions may write different things, and would write again and again. Nothing is
// written before all targets are known, and only what differs.
type Keeper struct {
	objects client.ValidatingWebhookConfigurationsGetter
	targets KnownTargets
	zero    *guardian // nil: zero and notice are not kept
	leads   func() bool
	log     *slog.Logger

	reported string // the text of the failure that was logged last
}

// NewKeeper makes a keeper. It needs the rights to get and update the
// ValidatingWebhookConfiguration celery-hpa.
func NewKeeper(objects client.ValidatingWebhookConfigurationsGetter, targets KnownTargets, log *slog.Logger) *Keeper {
	return &Keeper{objects: objects, targets: targets, leads: func() bool { return true }, log: log}
}

// OnlyWhile has the webhooks kept only while this replica leads. It is asked often, and
// must do no I/O. Call it before Run.
func (k *Keeper) OnlyWhile(leads func() bool) { k.leads = leads }

// GuardZero has the webhooks zero and notice kept as well. Call it before Run.
func (k *Keeper) GuardZero(guard Guard) { k.zero = newGuardian(guard, k.log) }

// Run keeps the webhooks up to date until ctx is done and then returns nil. It
// blocks. A configuration or webhook that does not exist is logged once, like any
// other failure, and looked for again.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		changed := k.targets.Changed()
		if k.leads() && k.targets.Synced() {
			if err := k.keep(ctx); ctx.Err() == nil {
				k.report(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-changed:
			if !sleep(ctx, settling) {
				return nil
			}
		}
	}
}

// keep compares the webhooks with the targets of now, and updates them if they differ.
// What is known of one is kept, whatever is wrong with another.
func (k *Keeper) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	all, errWanted := k.wanted(ctx)
	var err error
	for range attempts {
		if err = k.compareAndUpdate(ctx, all); !apierrors.IsConflict(err) {
			break
		}
	}
	return errors.Join(errWanted, err)
}

// wanted is what is to be kept of each webhook.
func (k *Keeper) wanted(ctx context.Context) ([]wanted, error) {
	var all []wanted
	expression, errVictims := targetsExpression(k.targets.All())
	if errVictims == nil {
		all = append(all, wanted{webhook: victimsWebhook, conditions: conditions(targetsCondition, expression)})
	}
	if k.zero == nil {
		return all, errVictims
	}
	guarded, errZero := k.zero.wanted(ctx)
	return append(all, guarded...), errors.Join(errVictims, errZero)
}

// compareAndUpdate makes the webhooks as wanted. The object's resourceVersion goes
// with the update, so that nobody else's change is undone.
func (k *Keeper) compareAndUpdate(ctx context.Context, all []wanted) error {
	objects := k.objects.ValidatingWebhookConfigurations()
	object, err := objects.Get(ctx, configurationName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: there is no ValidatingWebhookConfiguration %s", errAbsent, configurationName)
	}
	if err != nil {
		return fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", configurationName, err)
	}
	changed, errs := false, []error(nil)
	for _, w := range all {
		did, err := w.applyTo(object)
		changed, errs = changed || did, append(errs, err)
	}
	if !changed {
		return errors.Join(errs...)
	}
	if _, err := objects.Update(ctx, object, metav1.UpdateOptions{FieldManager: "celery-hpa"}); err != nil {
		return fmt.Errorf("update the targets in ValidatingWebhookConfiguration %s: %w", configurationName, err)
	}
	return errors.Join(errs...)
}

// report logs a failure once until another one follows, or none.
func (k *Keeper) report(err error) {
	if err == nil && k.reported != "" {
		k.log.Info("The targets of the webhooks are up to date again")
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != k.reported && err != nil {
		k.logFailure(err)
	}
	k.reported = text
}

func (k *Keeper) logFailure(err error) {
	if errors.Is(err, errAbsent) {
		k.log.Info("Scaling goes on without the webhooks; install them (webhooks.enabled of the chart) to have busy workers spared and steps to zero looked at", "error", err)
		return
	}
	k.log.Warn("The targets of the webhooks are not up to date; trying again", "error", err)
}

// sleep waits, and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
