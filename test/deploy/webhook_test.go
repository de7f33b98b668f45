package deploy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

func TestWebhook(t *testing.T) {
	c := start(t)
	c.kubectl(t, "apply", "--validate=strict", "-f", install)
	t.Run("they ask celery-hpa, and hinder no more than they must", c.askCeleryHPA)
	t.Run("an older one is brought up to date", c.upgradesWebhooks)
}

// manner is what a webhook does when it is asked, and when it cannot be.
type manner struct {
	Path          string
	FailurePolicy admissionregistrationv1.FailurePolicyType
	SideEffects   admissionregistrationv1.SideEffectClass
	Timeout       int32 // in seconds
	Rules         int
}

func (c cluster) askCeleryHPA(t *testing.T) {
	got := map[string]manner{}
	for _, w := range c.webhooks(t) {
		service := w.ClientConfig.Service
		if asked := service.Name + "." + service.Namespace + ".svc"; asked != servingName {
			t.Errorf("%s asks %s, want %s", w.Name, asked, servingName)
		}
		got[w.Name] = manner{*service.Path, *w.FailurePolicy, *w.SideEffects, *w.TimeoutSeconds, len(w.Rules)}
	}
	want := map[string]manner{
		"victims.celery-hpa.io": {admission.VictimsPath, admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNoneOnDryRun, 2, 1},
		"zero.celery-hpa.io":    {admission.ZeroPath, admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNoneOnDryRun, 3, 0},
		"notice.celery-hpa.io":  {admission.NoticePath, admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone, 3, 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
}

// upgradesWebhooks applies the manifest where there was one of the webhook victims
// alone: those that come with it have no certificate to trust but that of victims.
func (c cluster) upgradesWebhooks(t *testing.T) {
	p := c.runProgram(t)
	before := c.webhooks(t)
	p.stop(t)
	c.kubectl(t, "patch", "validatingwebhookconfiguration", "celery-hpa", "--type=strategic", "--patch",
		`{"webhooks": [{"$patch": "delete", "name": "zero.celery-hpa.io"}, {"$patch": "delete", "name": "notice.celery-hpa.io"}]}`)
	if left := c.webhooks(t); len(left) != 1 {
		t.Fatalf("%d webhooks are left, want one", len(left))
	}
	c.kubectl(t, "apply", "-f", install)
	p = c.startProgram(t)
	eventually.Holds(t, patience, "the webhooks are what they were", func() bool { return cmp.Equal(before, c.webhooks(t)) })
	p.stop(t)
}
