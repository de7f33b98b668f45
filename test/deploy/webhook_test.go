package deploy_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

func TestWebhook(t *testing.T) {
	c := start(t)
	c.kubectl(t, "apply", "--validate=strict", "-f", manifests)
	t.Run("it asks celery-hpa, and never hinders", c.asksCeleryHPA)
	t.Run("the script has its certificate trusted, and again at each renewal", func(t *testing.T) {
		c.runScript(t)
		c.verifyWebhook(t)
		c.runScript(t)
		c.verifyWebhook(t)
	})
	t.Run("applying it again keeps trust and targets", c.keepsWebhook)
	t.Run("the script needs no webhook", func(t *testing.T) {
		c.kubectl(t, "delete", "-f", filepath.Join(manifests, "50-webhook.yaml"))
		c.runScript(t)
		c.verify(t, c.servingCert(t))
	})
}

// webhook is the one webhook of the configuration.
func (c cluster) webhook(t *testing.T) admissionregistrationv1.ValidatingWebhook {
	t.Helper()
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	decode(t, c.kubectl(t, "get", "validatingwebhookconfiguration", "celery-hpa", "--output=yaml"), &configuration)
	if len(configuration.Webhooks) != 1 {
		t.Fatalf("%d webhooks, want one", len(configuration.Webhooks))
	}
	return configuration.Webhooks[0]
}

func (c cluster) asksCeleryHPA(t *testing.T) {
	w := c.webhook(t)
	service := w.ClientConfig.Service
	if got := service.Name + "." + service.Namespace + ".svc"; got != servingName || *service.Path != admission.VictimsPath {
		t.Errorf("it asks %s at %s, want %s at %s", got, *service.Path, servingName, admission.VictimsPath)
	}
	if *w.FailurePolicy != admissionregistrationv1.Ignore || *w.SideEffects != admissionregistrationv1.SideEffectClassNoneOnDryRun {
		t.Errorf("failurePolicy %s, sideEffects %s; want Ignore, NoneOnDryRun", *w.FailurePolicy, *w.SideEffects)
	}
}

// verifyWebhook checks that the webhook trusts the certificate for the APIService.
func (c cluster) verifyWebhook(t *testing.T) {
	t.Helper()
	c.verify(t, c.servingCert(t))
	var service struct{ Spec struct{ CABundle []byte } }
	decode(t, c.kubectl(t, "get", "apiservice", apiService, "--output=yaml"), &service)
	if diff := cmp.Diff(string(service.Spec.CABundle), string(c.webhook(t).ClientConfig.CABundle)); diff != "" {
		t.Errorf("the webhook trusts others than the APIService does (-APIService +webhook):\n%s", diff)
	}
}

func (c cluster) keepsWebhook(t *testing.T) {
	c.fillTargets(t)
	want := c.webhook(t)
	for _, apply := range [][]string{{"apply"}, {"apply", "--server-side", "--force-conflicts"}} {
		c.kubectl(t, append(apply, "-f", manifests)...)
		if diff := cmp.Diff(want, c.webhook(t)); diff != "" {
			t.Errorf("after kubectl %q (-before +after):\n%s", apply, diff)
		}
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
	targets := target.NewWatcher(clients, slog.New(slog.DiscardHandler))
	targets.Watch([]string{"default"})
	keeper := admission.NewConfiguration(clients.AdmissionregistrationV1(), targets, slog.New(slog.DiscardHandler))
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
	for !c.listsTarget(t, "default/deployments/worker") {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: the target is listed", patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c cluster) listsTarget(t *testing.T, name string) bool {
	t.Helper()
	return slices.ContainsFunc(c.webhook(t).MatchConditions, func(m admissionregistrationv1.MatchCondition) bool {
		return m.Name == "targets" && strings.Contains(m.Expression, name)
	})
}
