package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// What is kept up to date, as in deploy/manifests/50-webhook.yaml.
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

// Configuration keeps the match condition "targets" of the webhook
// victims.celery-hpa.io up to date, and nothing else: it lists the Deployments that
// the API server is to ask about. Make it with NewConfiguration.
//
// Several replicas of celery-hpa may each keep it: they write the same, and only what
// differs. Nothing is written before all targets are known.
type Configuration struct {
	objects client.ValidatingWebhookConfigurationsGetter
	targets KnownTargets
	log     *slog.Logger

	reported string // the text of the failure that was logged last
}

// NewConfiguration makes a keeper. It needs the rights to get and update the
// ValidatingWebhookConfiguration celery-hpa.
func NewConfiguration(objects client.ValidatingWebhookConfigurationsGetter, targets KnownTargets, log *slog.Logger) *Configuration {
	return &Configuration{objects: objects, targets: targets, log: log}
}

// Run keeps the condition up to date until ctx is done and then returns nil. It
// blocks. A configuration or webhook that does not exist is logged once, like any
// other failure, and looked for again.
func (c *Configuration) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		changed := c.targets.Changed()
		if c.targets.Synced() {
			if err := c.keep(ctx); ctx.Err() == nil {
				c.report(err)
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

// keep compares the condition with the targets of now, and updates it if it differs.
func (c *Configuration) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	expression, err := targetsExpression(c.targets.All())
	if err != nil {
		return err
	}
	for range attempts {
		if err = c.compareAndUpdate(ctx, expression); !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

// compareAndUpdate makes the condition that expression. The object's resourceVersion
// goes with the update, so that nobody else's change is undone.
func (c *Configuration) compareAndUpdate(ctx context.Context, expression string) error {
	objects := c.objects.ValidatingWebhookConfigurations()
	object, err := objects.Get(ctx, configurationName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: there is no ValidatingWebhookConfiguration %s", errAbsent, configurationName)
	}
	if err != nil {
		return fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", configurationName, err)
	}
	i := slices.IndexFunc(object.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool { return w.Name == victimsWebhook })
	if i < 0 {
		return fmt.Errorf("%w: ValidatingWebhookConfiguration %s has no webhook %s", errAbsent, configurationName, victimsWebhook)
	}
	if !setCondition(&object.Webhooks[i], expression) {
		return nil
	}
	if _, err := objects.Update(ctx, object, metav1.UpdateOptions{FieldManager: "celery-hpa"}); err != nil {
		return fmt.Errorf("update the targets in ValidatingWebhookConfiguration %s: %w", configurationName, err)
	}
	return nil
}

// setCondition gives a webhook the condition, and reports whether that has changed it.
func setCondition(webhook *admissionregistrationv1.ValidatingWebhook, expression string) bool {
	for i := range webhook.MatchConditions {
		if c := &webhook.MatchConditions[i]; c.Name == targetsCondition {
			changed := c.Expression != expression
			c.Expression = expression
			return changed
		}
	}
	webhook.MatchConditions = append(webhook.MatchConditions,
		admissionregistrationv1.MatchCondition{Name: targetsCondition, Expression: expression})
	return true
}

// report logs a failure once until another one follows, or none.
func (c *Configuration) report(err error) {
	if err == nil && c.reported != "" {
		c.log.Info("The targets of the victims webhook are up to date again")
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != c.reported && err != nil {
		c.logFailure(err)
	}
	c.reported = text
}

func (c *Configuration) logFailure(err error) {
	if errors.Is(err, errAbsent) {
		c.log.Info("Busy workers are not marked before a scale-down; apply deploy/manifests/50-webhook.yaml to have that", "error", err)
		return
	}
	c.log.Warn("The targets of the victims webhook are not up to date; trying again", "error", err)
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
