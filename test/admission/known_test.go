package admission_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// known is a set of targets that the test decides.
type known struct {
	mu      sync.Mutex
	targets []target.Target
	lost    bool // whether no kind can be named but Kubernetes' own
	changed chan struct{}
}

func newKnown(targets ...target.Target) *known {
	return &known{targets: targets, changed: make(chan struct{})}
}

func (k *known) set(targets ...target.Target) { k.change(func() { k.targets = targets }) }

func (k *known) change(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	close(k.changed)
	k.changed = make(chan struct{})
}

// All leaves out what the webhook victims would list.
func (*known) All() []target.Target { return nil }

func (k *known) OptedIn() []target.Target {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.targets
}

func (*known) Synced() bool { return true }

func (k *known) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Resource implements admission.Resources.
func (k *known) Resource(t target.Target) (schema.GroupResource, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost {
		return schema.GroupResource{}, errors.New("nobody can tell")
	}
	return resources{}.Resource(t)
}

// optedIn makes the target of an HPA that asks for zero.
func optedIn(w workload, minReplicas int32) target.Target {
	return target.Target{
		Namespace: w.Namespace, HPA: w.hpaName(), APIVersion: w.APIVersion, Kind: w.Kind, Name: w.Name, MinReplicas: minReplicas,
		Signals: []target.Signal{{Metric: "celery_queue_tasks"}}, Zero: target.Zero{Wanted: true},
	}
}

// keeping is a keeper that runs, with what it writes and says.
type keeping struct {
	objects *counting
	log     *servers.Transcript
}

// keepAs runs a keeper under a name.
func (f *fixture) keepAs(t *testing.T, user string, k *known) keeping {
	t.Helper()
	running := keeping{
		objects: &counting{ValidatingWebhookConfigurationInterface: f.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()},
		log:     &servers.Transcript{},
	}
	keeper := registration.NewKeeper(running.objects, k, slog.New(slog.NewTextHandler(running.log, nil)))
	keeper.GuardZero(registration.Guard{Targets: k, Resources: k, Self: func(context.Context) (string, error) { return user, nil }})
	run(t, keeper.Run)
	return running
}

// awaitLook waits until the keeper has compared once more, from now on.
func (k keeping) awaitLook(t *testing.T) {
	t.Helper()
	looks := k.objects.looks.Load()
	eventually.Succeeds(t, patience, "the keeper has compared anew", func() error {
		if k.objects.looks.Load() == looks {
			return errors.New("it has not")
		}
		return nil
	})
}

// counting counts what is read and written.
type counting struct {
	client.ValidatingWebhookConfigurationInterface
	looks, updates atomic.Int32
}

func (c *counting) ValidatingWebhookConfigurations() client.ValidatingWebhookConfigurationInterface {
	return c
}

func (c *counting) Get(ctx context.Context, name string, options metav1.GetOptions) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	defer c.looks.Add(1)
	return c.ValidatingWebhookConfigurationInterface.Get(ctx, name, options)
}

func (c *counting) Update(ctx context.Context, object *admissionregistrationv1.ValidatingWebhookConfiguration, options metav1.UpdateOptions) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	c.updates.Add(1) // before anybody can see what is written
	return c.ValidatingWebhookConfigurationInterface.Update(ctx, object, options)
}

// many are Deployments that there need not be, with names of a usual length that sort
// before those of all namespaces of this test.
func many(n int) []target.Target {
	targets := make([]target.Target, n)
	for i := range targets {
		targets[i] = optedIn(deployment("a-team-in-production", fmt.Sprintf("celery-worker-%04d", i)), 1)
	}
	return targets
}
