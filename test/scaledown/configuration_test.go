package scaledown_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const configurationName = "celery-hpa"

func (f *fixture) testConfiguration(t *testing.T) {
	t.Run("one that is not installed is said once", f.absentConfiguration)
	t.Run("only the targets are written, and only if they differ", f.keepsTargets)
	t.Run("nothing is written before all targets are known", f.waitsForTargets)
	t.Run("several keepers agree", f.keepersAgree)
}

func (f *fixture) absentConfiguration(t *testing.T) {
	known := newKnown("a")
	log := &servers.Transcript{}
	run(t, registration.NewKeeper(f.ours.AdmissionregistrationV1(), known, slog.New(slog.NewTextHandler(log, nil))).Run)
	eventually.Succeeds(t, patience, "it is said", func() error { return contains(log.String(), "there is no ValidatingWebhookConfiguration celery-hpa") })
	known.set("b")
	f.register(t, "https://127.0.0.1:1/")
	defer f.unregister(t)
	known.set("c")
	f.awaitExpression(t, `(request.namespace + '/' + request.resource.resource + '/' + request.name) in ["n/deployments/c"]`)
	if text := log.String(); strings.Count(text, "there is no") != 1 || strings.Contains(text, "level=WARN") {
		t.Errorf("want one message without alarm:\n%s", text)
	}
}

func (f *fixture) keepsTargets(t *testing.T) {
	f.register(t, "https://127.0.0.1:1/")
	defer f.unregister(t)
	before := f.configuration(t)
	known := newKnown("b", "a", "b")
	objects := &counting{ValidatingWebhookConfigurationInterface: f.ours.AdmissionregistrationV1().ValidatingWebhookConfigurations()}
	run(t, registration.NewKeeper(objects, known, logger(t)).Run)
	const expression = `(request.namespace + '/' + request.resource.resource + '/' + request.name) in ["n/deployments/a", "n/deployments/b"]`
	f.awaitExpression(t, expression)
	after := f.configuration(t)
	want := before.DeepCopy().Webhooks
	want[0].MatchConditions = append(want[0].MatchConditions, admissionregistrationv1.MatchCondition{Name: "targets", Expression: expression})
	if diff := cmp.Diff(want, after.Webhooks); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
	looks := objects.looks.Load()
	known.set("a", "b")
	eventually.Succeeds(t, patience, "the keeper has compared anew", func() error {
		if objects.looks.Load() == looks {
			return errors.New("it has not")
		}
		return nil
	})
	for _, tt := range []struct {
		rule  string
		names []string
		want  string
	}{
		{"no target matches nothing", nil, "false"},
		{"names are quoted", []string{"it's", `"a" \ b`, "line\nend", "é"}, `in ["n/deployments/\"a\" \\ b", "n/deployments/it's", "n/deployments/line\nend", "n/deployments/\u00e9"]`},
		{"too many names are namespaces", many(5000), `request.namespace in ["n"]`},
		{"what was the last is the next", []string{"a", "b"}, expression},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			known.set(tt.names...)
			f.awaitExpression(t, tt.want)
		})
	}
	// The first one and four changes; that of the order was none.
	if n := objects.updates.Load(); n != 5 {
		t.Errorf("written %d times, want 5", n)
	}
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
	c.looks.Add(1)
	return c.ValidatingWebhookConfigurationInterface.Get(ctx, name, options)
}

func (c *counting) Update(ctx context.Context, object *admissionregistrationv1.ValidatingWebhookConfiguration, options metav1.UpdateOptions) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	c.updates.Add(1)
	return c.ValidatingWebhookConfigurationInterface.Update(ctx, object, options)
}

func (f *fixture) waitsForTargets(t *testing.T) {
	f.register(t, "https://127.0.0.1:1/")
	defer f.unregister(t)
	known := newKnown()
	known.synced = false
	run(t, registration.NewKeeper(f.ours.AdmissionregistrationV1(), known, logger(t)).Run)
	eventually.Succeeds(t, patience, "the keeper has asked whether they are", func() error {
		if known.timesAsked() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	known.change(func() { known.synced, known.names = true, []string{"a"} })
	f.awaitExpression(t, `["n/deployments/a"]`)
	// The first write: were an empty list written before, there would be two.
	if got := f.configuration(t).Generation; got != 2 {
		t.Errorf("generation %d, want 2", got)
	}
}

func (f *fixture) keepersAgree(t *testing.T) {
	f.register(t, "https://127.0.0.1:1/")
	defer f.unregister(t)
	known := newKnown("a")
	log := &servers.Transcript{}
	for range 8 {
		run(t, registration.NewKeeper(f.ours.AdmissionregistrationV1(), known, slog.New(slog.NewTextHandler(log, nil))).Run)
	}
	for _, name := range []string{"b", "c", "d"} {
		known.set(name)
		f.awaitExpression(t, `["n/deployments/`+name+`"]`)
	}
	if log.String() != "" {
		t.Errorf("want no word of conflicts:\n%s", log)
	}
}

// register applies what is shipped, for a server at another address.
func (f *fixture) register(t *testing.T, url string) {
	t.Helper()
	text, err := playground.Webhooks()
	if err != nil {
		t.Fatal(err)
	}
	var object admissionregistrationv1.ValidatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Fatal(err)
	}
	if path := *object.Webhooks[0].ClientConfig.Service.Path; path != admission.VictimsPath {
		t.Errorf("the manifest asks at %s, want %s", path, admission.VictimsPath)
	}
	for i := range object.Webhooks {
		object.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: f.cluster.CABundle()}
	}
	if _, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) unregister(t *testing.T) {
	t.Helper()
	objects := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if err := objects.Delete(t.Context(), configurationName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

func (f *fixture) configuration(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	object, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), configurationName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// awaitExpression waits until the condition "targets" has this text in it.
func (f *fixture) awaitExpression(t *testing.T, want string) {
	t.Helper()
	eventually.Succeeds(t, patience, "the targets are "+want, func() error {
		conditions := f.configuration(t).Webhooks[0].MatchConditions
		for _, c := range conditions {
			if c.Name == "targets" {
				return contains(c.Expression, want)
			}
		}
		return fmt.Errorf("conditions %v", conditions)
	})
}

func contains(text, want string) error {
	if !strings.Contains(text, want) {
		return fmt.Errorf("%q", text)
	}
	return nil
}

// known is a set of targets that the test decides: Deployments of the namespace n.
type known struct {
	mu      sync.Mutex
	names   []string
	synced  bool
	asked   int // whether it has synced
	changed chan struct{}
}

func newKnown(names ...string) *known {
	return &known{names: names, synced: true, changed: make(chan struct{})}
}

func (k *known) change(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *known) set(names ...string) { k.change(func() { k.names = names }) }

func (k *known) All() []target.Target {
	k.mu.Lock()
	defer k.mu.Unlock()
	targets := []target.Target{{Namespace: "n", APIVersion: "apps/v1", Kind: "StatefulSet", Name: "no-deployment"}}
	for _, name := range k.names {
		targets = append(targets, target.Target{Namespace: "n", APIVersion: "apps/v1", Kind: "Deployment", Name: name})
	}
	return targets
}

func (k *known) Synced() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.synced
}

func (k *known) timesAsked() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *known) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("worker-with-a-long-name-%d", i)
	}
	return names
}
