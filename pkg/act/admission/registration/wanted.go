package registration

import (
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// wanted is what is to be kept of one webhook.
type wanted struct {
	webhook    string
	conditions []admissionregistrationv1.MatchCondition
	// given is the condition of the chart without which the webhook is to match
	// nothing; empty for a webhook whose rules are not kept.
	given string
	rules []admissionregistrationv1.RuleWithOperations
}

// applyTo gives the webhook what is wanted, and reports whether that has changed it.
func (w wanted) applyTo(object *admissionregistrationv1.ValidatingWebhookConfiguration) (changed bool, err error) {
	webhook := find(object, w.webhook)
	if webhook == nil {
		return false, fmt.Errorf("%w: ValidatingWebhookConfiguration %s has no webhook %s", errAbsent, configurationName, w.webhook)
	}
	if w.given == "" {
		return w.setConditions(webhook), nil
	}
	if !slices.ContainsFunc(webhook.MatchConditions, named(w.given)) {
		return setRules(webhook, nil), fmt.Errorf("webhook %s lacks its match condition %s, without which it must match nothing; "+
			"install celery-hpa again (match conditions need Kubernetes 1.28)", w.webhook, w.given)
	}
	changed = w.setConditions(webhook)
	changed = setRules(webhook, w.rules) || changed
	return trustAs(find(object, victimsWebhook), webhook) || changed, nil
}

// setConditions gives a webhook the conditions that are kept, and leaves all others.
func (w wanted) setConditions(webhook *admissionregistrationv1.ValidatingWebhook) (changed bool) {
	for _, c := range w.conditions {
		i := slices.IndexFunc(webhook.MatchConditions, named(c.Name))
		switch {
		case i < 0:
			webhook.MatchConditions = append(webhook.MatchConditions, c)
			changed = true
		case webhook.MatchConditions[i] != c:
			webhook.MatchConditions[i] = c
			changed = true
		}
	}
	return changed
}

func setRules(webhook *admissionregistrationv1.ValidatingWebhook, rules []admissionregistrationv1.RuleWithOperations) (changed bool) {
	if equality.Semantic.DeepEqual(webhook.Rules, rules) {
		return false
	}
	webhook.Rules = rules
	return true
}

// trustAs has a webhook that trusts no certificate yet trust those of another one: it
// was added later, and all are served by the same.
func trustAs(other, webhook *admissionregistrationv1.ValidatingWebhook) (changed bool) {
	if other == nil || len(webhook.ClientConfig.CABundle) > 0 || len(other.ClientConfig.CABundle) == 0 {
		return false
	}
	webhook.ClientConfig.CABundle = slices.Clone(other.ClientConfig.CABundle)
	return true
}

// find returns a webhook of a configuration, nil if there is none of the name.
func find(object *admissionregistrationv1.ValidatingWebhookConfiguration, name string) *admissionregistrationv1.ValidatingWebhook {
	for i := range object.Webhooks {
		if object.Webhooks[i].Name == name {
			return &object.Webhooks[i]
		}
	}
	return nil
}

func named(name string) func(admissionregistrationv1.MatchCondition) bool {
	return func(c admissionregistrationv1.MatchCondition) bool { return c.Name == name }
}
