package deploy_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// webhookManifest is what has the API server ask celery-hpa.
const webhookManifest = manifests + "/50-webhook.yaml"

func TestWebhook(t *testing.T) {
	c := start(t)
	c.kubectl(t, "apply", "--validate=strict", "-f", manifests)
	t.Run("they ask celery-hpa, and hinder no more than they must", c.askCeleryHPA)
	t.Run("celery-hpa has its certificate trusted", func(t *testing.T) {
		c.keepCertificate(t)
		c.verifyWebhooks(t)
	})
	t.Run("applying it again keeps trust and targets", c.keepsWebhooks)
	t.Run("an older one is brought up to date", c.upgradesWebhooks)
	t.Run("the certificate needs no webhook", func(t *testing.T) {
		c.kubectl(t, "delete", "-f", webhookManifest)
		c.kubectl(t, "delete", "secret", "--namespace=celery-hpa", "celery-hpa-serving-cert")
		c.keepCertificate(t)
		c.verify(t, c.servingCert(t))
	})
}

// webhooks are those of the configuration.
func (c cluster) webhooks(t *testing.T) []admissionregistrationv1.ValidatingWebhook {
	t.Helper()
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	decode(t, c.kubectl(t, "get", "validatingwebhookconfiguration", "celery-hpa", "--output=yaml"), &configuration)
	return configuration.Webhooks
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

// verifyWebhooks checks that each webhook trusts the certificate for the APIService.
func (c cluster) verifyWebhooks(t *testing.T) {
	t.Helper()
	c.verify(t, c.servingCert(t))
	var service struct{ Spec struct{ CABundle []byte } }
	decode(t, c.kubectl(t, "get", "apiservice", apiService, "--output=yaml"), &service)
	for _, w := range c.webhooks(t) {
		if diff := cmp.Diff(string(service.Spec.CABundle), string(w.ClientConfig.CABundle)); diff != "" {
			t.Errorf("%s trusts others than the APIService does (-APIService +webhook):\n%s", w.Name, diff)
		}
	}
}

func (c cluster) keepsWebhooks(t *testing.T) {
	c.fillTargets(t)
	want := c.webhooks(t)
	for _, apply := range [][]string{{"apply"}, {"apply", "--server-side"}, {"apply", "--server-side", "--force-conflicts"}} {
		c.kubectl(t, append(apply, "-f", webhookManifest)...)
		if diff := cmp.Diff(want, c.webhooks(t)); diff != "" {
			t.Errorf("after kubectl %q (-before +after):\n%s", apply, diff)
		}
	}
}

// upgradesWebhooks applies the manifest where there was one of the webhook victims
// alone: those that come with it have no certificate to trust but that of victims.
func (c cluster) upgradesWebhooks(t *testing.T) {
	before := c.webhooks(t)
	c.kubectl(t, "patch", "validatingwebhookconfiguration", "celery-hpa", "--type=strategic", "--patch",
		`{"webhooks": [{"$patch": "delete", "name": "zero.celery-hpa.io"}, {"$patch": "delete", "name": "notice.celery-hpa.io"}]}`)
	if left := c.webhooks(t); len(left) != 1 {
		t.Fatalf("%d webhooks are left, want one", len(left))
	}
	c.kubectl(t, "apply", "-f", webhookManifest)
	c.fillTargets(t)
	if diff := cmp.Diff(before, c.webhooks(t)); diff != "" {
		t.Errorf("webhooks (-before +after):\n%s", diff)
	}
}

// fillTargets has celery-hpa list its targets, of which there is one.
func (c cluster) fillTargets(t *testing.T) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "apply", "-f", filepath.Join(examples, "hpa.yaml"))
	c.kubectl(t, "annotate", "--overwrite", "hpa/worker", v1alpha1.AnnotationScaleToZero+"=true")
	targets := target.NewWatcher(clients, slog.New(slog.DiscardHandler))
	targets.Watch([]string{"default"})
	keeper := registration.NewKeeper(clients.AdmissionregistrationV1(), targets, slog.New(slog.DiscardHandler))
	keeper.GuardZero(registration.Guard{Targets: targets, Self: registration.OwnName(clients.AuthenticationV1())})
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 2)
	for _, run := range []func(context.Context) error{targets.Run, keeper.Run} {
		go func() { stopped <- run(ctx) }()
	}
	defer func() {
		stop()
		for range cap(stopped) {
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		}
	}()
	deadline := time.Now().Add(patience)
	for !c.listTarget(t, "default/deployments/worker", "default/deployments.apps/worker") {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: the target is listed", patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// listTarget tells whether all webhooks list a target, by one of these names.
func (c cluster) listTarget(t *testing.T, names ...string) bool {
	t.Helper()
	lists := func(m admissionregistrationv1.MatchCondition) bool {
		return m.Name == "targets" && slices.ContainsFunc(names, func(name string) bool { return strings.Contains(m.Expression, strconv.Quote(name)) })
	}
	return !slices.ContainsFunc(c.webhooks(t), func(w admissionregistrationv1.ValidatingWebhook) bool {
		return !slices.ContainsFunc(w.MatchConditions, lists)
	})
}
