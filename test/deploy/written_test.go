package deploy_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// written is what celery-hpa has written into objects that it did not make.
type written struct {
	Webhooks []admissionregistrationv1.ValidatingWebhook
	Trusted  string // by the APIService
	Secret   map[string]string
	Leads    bool
}

// program is those parts of celery-hpa that write into such objects, with its rights.
type program struct {
	elector *leader.Elector
	end     context.CancelFunc
	ended   chan error
	parts   int
}

// runProgram blocks until all is written. It leaves an HPA that asks for zero behind.
func (c cluster) runProgram(t *testing.T) *program {
	t.Helper()
	c.kubectl(t, "apply", "-f", filepath.Join(examples, "hpa.yaml"))
	c.kubectl(t, "annotate", "--overwrite", "hpa/worker", v1alpha1.AnnotationScaleToZero+"=true")
	p := c.startProgram(t)
	eventually.Holds(t, patience, "the certificate is trusted", func() bool {
		w := c.read(t)
		return w.Trusted != "" && len(w.Secret) == 4 && !slices.ContainsFunc(w.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
			return string(w.ClientConfig.CABundle) != c.read(t).Trusted
		})
	})
	eventually.Holds(t, patience, "the target is listed", func() bool {
		return c.listTarget(t, "default/deployments/worker", "default/deployments.apps/worker")
	})
	eventually.Holds(t, patience, "the Lease is taken", p.elector.Leads)
	return p
}

// rights are those of celery-hpa.
func (c cluster) rights(t *testing.T) *rest.Config {
	t.Helper()
	config, err := c.ConfigFor("system:serviceaccount:celery-hpa:celery-hpa", "system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// startProgram runs the keeper of the webhooks, and the election.
func (c cluster) startProgram(t *testing.T) *program {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.rights(t))
	if err != nil {
		t.Fatal(err)
	}
	p := &program{}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	if p.elector, err = leader.New(clients.CoordinationV1(), namespace, "pod", log, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	targets := target.NewWatcher(clients, log)
	targets.Watch([]string{"default"})
	keeper := registration.NewKeeper(clients.AdmissionregistrationV1(), targets, log)
	keeper.GuardZero(registration.Guard{Targets: targets, Self: registration.OwnName(clients.AuthenticationV1())})
	options := certificates.DefaultOptions()
	options.Secret, options.Namespace = "celery-hpa-serving-cert", namespace
	certs, err := certificates.NewKeeper(c.rights(t), options, p.elector.Leads, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	parts := []func(context.Context) error{targets.Run, keeper.Run, p.elector.Run, certs.Run}
	var ctx context.Context
	ctx, p.end = context.WithCancel(context.WithoutCancel(t.Context()))
	p.ended, p.parts = make(chan error, len(parts)), len(parts)
	for _, run := range parts {
		go func() { p.ended <- run(ctx) }()
	}
	t.Cleanup(p.end)
	return p
}

// stop ends the parts and waits for them.
func (p *program) stop(t *testing.T) {
	t.Helper()
	p.end()
	for range p.parts {
		if err := <-p.ended; err != nil {
			t.Error(err)
		}
	}
	p.parts = 0
}

// written reads what celery-hpa has written, and fails where it has written nothing.
func (c cluster) written(t *testing.T) written {
	t.Helper()
	w := c.read(t)
	if w.Trusted == "" || len(w.Secret) != 4 || !w.Leads {
		t.Fatalf("not all is written: %+v", w)
	}
	for _, one := range w.Webhooks {
		if len(one.ClientConfig.CABundle) == 0 || len(one.Rules) == 0 || len(one.MatchConditions) < 2 {
			t.Fatalf("not all is written into webhook %s: %+v", one.Name, one)
		}
	}
	return w
}

func (c cluster) read(t *testing.T) written {
	t.Helper()
	var service struct{ Spec struct{ CABundle []byte } }
	decode(t, c.kubectl(t, "get", "apiservice", apiService, "--output=yaml"), &service)
	var secret corev1.Secret
	decode(t, c.kubectl(t, "get", "secret", "celery-hpa-serving-cert", "--namespace=celery-hpa", "--output=yaml"), &secret)
	var lease coordinationv1.Lease
	decode(t, c.kubectl(t, "get", "lease", "celery-hpa", "--namespace=celery-hpa", "--output=yaml"), &lease)
	w := written{Webhooks: c.webhooks(t), Trusted: string(service.Spec.CABundle), Secret: map[string]string{}}
	for name, data := range secret.Data {
		w.Secret[name] = string(data)
	}
	w.Leads = lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == "pod"
	return w
}

func (c cluster) expectWritten(t *testing.T, want written) {
	t.Helper()
	if diff := cmp.Diff(want, c.read(t)); diff != "" {
		t.Errorf("what celery-hpa has written (-before +after):\n%s", diff)
	}
}

// webhooks are those of the configuration.
func (c cluster) webhooks(t *testing.T) []admissionregistrationv1.ValidatingWebhook {
	t.Helper()
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	decode(t, c.kubectl(t, "get", "validatingwebhookconfiguration", "celery-hpa", "--output=yaml"), &configuration)
	return configuration.Webhooks
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
