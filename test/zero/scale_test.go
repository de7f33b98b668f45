package zero_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/scale"
	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// The rights that reading and writing scales needs; the watch has others.
const scaleRights = `
- {apiGroups: [apps], resources: [deployments/scale, statefulsets/scale], verbs: [patch]}
- {apiGroups: [apps], resources: [replicasets/scale], verbs: [get, patch]}
- {apiGroups: [example.com], resources: [widgets/scale, gears/scale], verbs: [get, patch]}
`

// watch is the real one, of which it can be said that it is behind.
type watch struct {
	*fleet.Watcher
	frozen map[fleet.Ref]fleet.Scale
}

func (w *watch) Scale(ref fleet.Ref) (fleet.Scale, error) {
	if shown, ok := w.frozen[ref]; ok {
		return shown, nil
	}
	return w.Watcher.Scale(ref)
}

// silence is where no worker was ever heard.
type silence struct{}

func (silence) OnHost(string, string) []workers.Worker { return nil }

// watch watches a namespace until the test ends.
func (f *fixture) watch(t *testing.T, namespace string) *watch {
	t.Helper()
	w := &watch{Watcher: fleet.NewWatcher(f.admin, silence{}, logger(t.Output())), frozen: map[fleet.Ref]fleet.Scale{}}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	w.Watch(ctx, []string{namespace})
	t.Cleanup(func() {
		end()
		w.Wait()
	})
	return w
}

// freeze has the watch go on to show what it shows now.
func (w *watch) freeze(t *testing.T, ref fleet.Ref) {
	t.Helper()
	shown, err := w.Scale(ref)
	if err != nil {
		t.Fatal(err)
	}
	w.frozen[ref] = shown
}

// bench is a namespace with something to scale of each kind, and a Scales with no more
// rights than it needs.
type bench struct {
	*fixture
	namespace string
	watch     *watch
	requests  *requests
	scales    *scale.Scales
}

func (f *fixture) bench(t *testing.T) *bench {
	t.Helper()
	b := &bench{fixture: f, namespace: f.namespace(t)}
	f.apply(t, strings.ReplaceAll(scalables, "NS", b.namespace))
	b.watch = f.watch(t, b.namespace)
	for _, kind := range []fleet.Kind{fleet.Deployment, fleet.StatefulSet} {
		eventually.Succeeds(t, patience, "the watch shows what there is", func() error {
			_, err := b.watch.Scale(fleet.Ref{Namespace: b.namespace, Kind: kind, Name: "worker"})
			return err
		})
	}
	config := f.as(t, b.namespace, "scaler", scaleRights)
	b.requests = recorded(config)
	b.scales = newScales(t, config, b.watch)
	return b
}

func newScales(t *testing.T, config *rest.Config, watched scale.Watched) *scale.Scales {
	t.Helper()
	scales, err := scale.New(config, watched)
	if err != nil {
		t.Fatal(err)
	}
	return scales
}

const scalables = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: deployment}}
  template:
    metadata: {labels: {app: deployment}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: worker, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: worker, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: replicas}}
  template:
    metadata: {labels: {app: replicas}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: worker, namespace: NS}
spec: {replicas: 1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: worker, namespace: NS}
`

// definition is a kind with the subresource scale.
func definition(kind string) string {
	singular := strings.ToLower(kind)
	return strings.NewReplacer("KIND", kind, "SINGULAR", singular).Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: SINGULARs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: KIND, singular: SINGULAR, plural: SINGULARs}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {replicas: {type: integer}}}
          status: {type: object, properties: {replicas: {type: integer}, selector: {type: string}}}
    subresources:
      status: {}
      scale:
        specReplicasPath: .spec.replicas
        statusReplicasPath: .status.replicas
        labelSelectorPath: .status.selector
`)
}

func definitionWithoutScale() string {
	before, _, _ := strings.Cut(definition("Ornament"), "    subresources:")
	return before
}

func (b *bench) target(apiVersion, kind string) target.Target {
	return target.Target{Namespace: b.namespace, HPA: "worker", APIVersion: apiVersion, Kind: kind, Name: "worker"}
}

func (b *bench) deployment() target.Target { return b.target("apps/v1", "Deployment") }
func (b *bench) widget() target.Target     { return b.target("example.com/v1", "Widget") }

// kinds are one of each way to be scaled: two that are watched, one more of Kubernetes
// itself, and a custom one.
func (b *bench) kinds() []target.Target {
	return []target.Target{b.deployment(), b.target("apps/v1", "StatefulSet"), b.target("apps/v1", "ReplicaSet"), b.widget()}
}

func (f *fixture) testScales(t *testing.T) {
	f.apply(t, definition("Widget"))
	f.kubectl(t, "wait", "--for=condition=Established", "crd/widgets.example.com")
	for rule, test := range map[string]func(*testing.T){
		"a size is written, zero as any other":                 f.writesSizes,
		"a write is one request":                               f.writesByOneRequest,
		"what has changed since it was looked at is left":      f.leavesChanged,
		"what was replaced since it was looked at is left":     f.leavesReplaced,
		"without a resourceVersion nothing is written":         f.writesNothingUnseen,
		"a watch that is behind does not hide what is written": f.outrunsWatch,
		"what is not watched is asked seldom":                  f.asksSeldom,
		"what a webhook refuses is a refusal":                  f.tellsRefusals,
		"a right that is missing is named":                     f.namesRights,
		"what cannot be scaled is said clearly":                f.explainsScaling,
		"a kind that is installed later is found":              f.findsNewKinds,
		"an API server that is silent is not waited for":       f.leavesTheSilent,
	} {
		t.Run(rule, test)
	}
}

// real is spec.replicas as the API server has it.
func (b *bench) real(t *testing.T, scaled target.Target) string {
	t.Helper()
	return b.kubectl(t, "get", "--namespace="+b.namespace, strings.ToLower(scaled.Kind)+"/"+scaled.Name, "--output=jsonpath={.spec.replicas}")
}

// set writes a size against the latest one, again if a controller was faster.
func (b *bench) set(t *testing.T, scaled target.Target, replicas int32) {
	t.Helper()
	eventually.Succeeds(t, patience, "a size is written", func() error {
		seen, err := b.scales.Get(t.Context(), scaled)
		if err != nil {
			t.Fatal(err)
		}
		err = b.scales.Set(t.Context(), scaled, seen, replicas)
		if err != nil && !errors.Is(err, zeroscaler.ErrConflict) {
			t.Fatal(err)
		}
		return err
	})
}

func (f *fixture) writesSizes(t *testing.T) {
	b := f.bench(t)
	for _, scaled := range b.kinds() {
		for _, replicas := range []int32{3, 0, 0, 2} {
			b.set(t, scaled, replicas)
			if got, want := b.real(t, scaled), fmt.Sprint(replicas); got != want {
				t.Errorf("%s has %q replicas, want %s", scaled, got, want)
			}
			got, err := b.scales.Get(t.Context(), scaled)
			if err != nil || got.Replicas != replicas || got.UID == "" {
				t.Errorf("Get(%s) = %+v, %v, want %d replicas", scaled, got, err, replicas)
			}
		}
	}
}

func (f *fixture) writesByOneRequest(t *testing.T) {
	b := f.bench(t)
	for _, scaled := range b.kinds() {
		b.set(t, scaled, 2) // finds the kind
		b.requests.take()
		seen, err := b.scales.Get(t.Context(), scaled)
		if err != nil {
			t.Fatal(err)
		}
		if made := b.requests.take(); len(made) > 0 {
			t.Errorf("Get(%s) has asked %q, want what was known", scaled, made)
		}
		_ = b.scales.Set(t.Context(), scaled, seen, 3) // a controller may be faster: one request all the same
		made := b.requests.take()
		if len(made) != 1 || !strings.HasPrefix(made[0], "PATCH ") || !strings.HasSuffix(made[0], "s/worker/scale") {
			t.Errorf("Set(%s) has asked %q, want one PATCH of the scale", scaled, made)
		}
	}
}

func (f *fixture) leavesChanged(t *testing.T) {
	b := f.bench(t)
	for _, scaled := range b.kinds() {
		seen, err := b.scales.Get(t.Context(), scaled)
		if err != nil {
			t.Fatal(err)
		}
		b.kubectl(t, "annotate", "--namespace="+b.namespace, strings.ToLower(scaled.Kind)+"/worker", "changed=yes")
		for _, replicas := range []int32{0, 1, 5} { // 1 is what there is
			if err := b.scales.Set(t.Context(), scaled, seen, replicas); !errors.Is(err, zeroscaler.ErrConflict) {
				t.Errorf("Set(%s, %d) = %v, want a conflict", scaled, replicas, err)
			}
		}
		if got := b.real(t, scaled); got != "1" {
			t.Errorf("%s has %s replicas, want 1", scaled, got)
		}
	}
}

func (f *fixture) leavesReplaced(t *testing.T) {
	b := f.bench(t)
	for _, scaled := range b.kinds() {
		seen, err := b.scales.Get(t.Context(), scaled)
		if err != nil {
			t.Fatal(err)
		}
		b.kubectl(t, "delete", "--namespace="+b.namespace, strings.ToLower(scaled.Kind)+"/worker", "--cascade=orphan")
		b.apply(t, strings.ReplaceAll(scalables, "NS", b.namespace))
		if err := b.scales.Set(t.Context(), scaled, seen, 0); !errors.Is(err, zeroscaler.ErrConflict) {
			t.Errorf("Set(%s) = %v, want a conflict", scaled, err)
		}
	}
}

func (f *fixture) writesNothingUnseen(t *testing.T) {
	b := f.bench(t)
	if err := b.scales.Set(t.Context(), b.deployment(), zeroscaler.Scale{}, 0); err == nil || b.real(t, b.deployment()) != "1" {
		t.Errorf("Set() = %v, and there are %s replicas, want an error and 1", err, b.real(t, b.deployment()))
	}
}

func (f *fixture) outrunsWatch(t *testing.T) {
	b := f.bench(t)
	ref := fleet.Ref{Namespace: b.namespace, Kind: fleet.Deployment, Name: "worker"}
	// Without controllers in between, each write goes from the last one to the next.
	eventually.Succeeds(t, patience, "two writes in a row", func() error {
		delete(b.watch.frozen, ref)
		b.watch.freeze(t, ref)
		for _, replicas := range []int32{4, 5} {
			seen, err := b.scales.Get(t.Context(), b.deployment())
			if err != nil {
				t.Fatal(err)
			}
			if err := b.scales.Set(t.Context(), b.deployment(), seen, replicas); err != nil {
				return err
			}
			if got, err := b.scales.Get(t.Context(), b.deployment()); err != nil || got.Replicas != replicas || got.ResourceVersion == seen.ResourceVersion {
				t.Errorf("after %d was written: Get() = %+v, %v", replicas, got, err)
			}
		}
		return nil
	})
	b.kubectl(t, "scale", "--namespace="+b.namespace, "deployment/worker", "--replicas=9")
	if got, err := b.scales.Get(t.Context(), b.deployment()); err != nil || got.Replicas != 5 {
		t.Errorf("with the watch behind: Get() = %+v, %v, want 5 replicas", got, err)
	}
	delete(b.watch.frozen, ref)
	eventually.Succeeds(t, patience, "the watch going on, there are 9", func() error {
		got, err := b.scales.Get(t.Context(), b.deployment())
		if err != nil || got.Replicas != 9 {
			return errors.Join(fmt.Errorf("Get() = %+v", got), err)
		}
		return nil
	})
}

func (f *fixture) asksSeldom(t *testing.T) {
	b := f.bench(t)
	began := time.Now()
	for range 1000 {
		if _, err := b.scales.Get(t.Context(), b.widget()); err != nil {
			t.Fatal(err)
		}
	}
	asked := slices.DeleteFunc(b.requests.take(), func(r string) bool { return !strings.HasSuffix(r, "/scale") })
	if most := 1 + int(time.Since(began)/time.Second); len(asked) == 0 || len(asked) > most {
		t.Errorf("asked %d times for 1000 answers, want once a second", len(asked))
	}
	b.set(t, b.widget(), 7)
	b.requests.take()
	got, err := b.scales.Get(t.Context(), b.widget())
	if err != nil || got.Replicas != 7 {
		t.Errorf("Get() = %+v, %v, want the 7 replicas that were written", got, err)
	}
}

func (f *fixture) namesRights(t *testing.T) {
	b := f.bench(t)
	config := f.as(t, b.namespace, "nobody", "")
	scales := newScales(t, config, b.watch)
	expect := func(err error, want string) {
		t.Helper()
		want = strings.ReplaceAll(want, "NS", b.namespace)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
		if _, refused := errors.AsType[*zeroscaler.RefusedError](err); refused || errors.Is(err, zeroscaler.ErrConflict) {
			t.Errorf("%v is neither a refusal nor a conflict", err)
		}
	}
	seen, err := scales.Get(t.Context(), b.deployment())
	if err != nil {
		t.Fatal(err)
	}
	expect(scales.Set(t.Context(), b.deployment(), seen, 0),
		`scale Deployment NS/worker to 0: the right to patch deployments/scale of API group "apps" in namespace NS is missing`)
	_, err = scales.Get(t.Context(), b.widget())
	expect(err, `read the scale of Widget NS/worker: the right to get widgets/scale of API group "example.com" in namespace NS is missing`)
}

func (f *fixture) explainsScaling(t *testing.T) {
	b := f.bench(t)
	b.apply(t, definitionWithoutScale())
	b.kubectl(t, "wait", "--for=condition=Established", "crd/ornaments.example.com")
	missing := func(scaled target.Target) target.Target {
		scaled.Name = "gone"
		return scaled
	}
	for _, tt := range []struct {
		rule   string
		target target.Target
		want   string
	}{
		{"no such Deployment", missing(b.deployment()), "HorizontalPodAutoscaler NS/worker scales Deployment NS/gone, which does not exist"},
		{"no such StatefulSet", missing(b.target("apps/v1", "StatefulSet")), "scales StatefulSet NS/gone, which does not exist"},
		{"no such ReplicaSet", missing(b.target("apps/v1", "ReplicaSet")), "HorizontalPodAutoscaler NS/worker scales ReplicaSet NS/gone, which does not exist"},
		{"no such custom object", missing(b.widget()), "scales Widget NS/gone, which does not exist"},
		{"a kind of Kubernetes itself without scale", b.target("v1", "ConfigMap"), "scales ConfigMap NS/worker, but configmaps have no scale subresource"},
		{"a custom kind without scale", b.target("example.com/v1", "Ornament"), "scales Ornament NS/worker, but ornaments.example.com have no scale subresource"},
		{"no such kind", b.target("example.com/v1", "Gizmo"), `the cluster has no kind Gizmo in API group "example.com"`},
		{"no such group", b.target("example.org/v1", "Widget"), `the cluster has no kind Widget in API group "example.org"`},
		{"no API group at all", b.target("a/b/c", "Widget"), "whose apiVersion is wrong"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			admin := newScales(t, b.cluster.RESTConfig(), b.watch)
			want := strings.ReplaceAll(tt.want, "NS", b.namespace)
			if _, err := admin.Get(t.Context(), tt.target); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Get() = %v, want an error that says %q", err, want)
			}
			seen := zeroscaler.Scale{ResourceVersion: "1"}
			if err := admin.Set(t.Context(), tt.target, seen, 0); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Set() = %v, want an error that says %q", err, want)
			}
		})
	}
}

func (f *fixture) findsNewKinds(t *testing.T) {
	b := f.bench(t)
	resource := func(scaled target.Target, want string) {
		t.Helper()
		got, err := b.scales.Resource(scaled)
		if diff := cmp.Diff(schema.ParseGroupResource(want), got); err != nil || diff != "" {
			t.Errorf("Resource(%s): %v (-want +got):\n%s", scaled, err, diff)
		}
	}
	resource(b.deployment(), "deployments.apps")
	resource(b.target("apps/v1beta1", "StatefulSet"), "statefulsets.apps")
	if made := b.requests.take(); len(made) > 0 {
		t.Errorf("asked %q for what everybody knows", made)
	}
	resource(b.widget(), "widgets.example.com") // makes discovery
	b.apply(t, definition("Gear"))
	b.kubectl(t, "wait", "--for=condition=Established", "crd/gears.example.com")
	b.apply(t, strings.ReplaceAll("{apiVersion: example.com/v1, kind: Gear, metadata: {name: worker, namespace: NS}, spec: {replicas: 1}}", "NS", b.namespace))
	gear := b.target("example.com/v1", "Gear")
	eventually.Succeeds(t, patience, "the new kind is found", func() error {
		_, err := b.scales.Get(t.Context(), gear)
		return err
	})
	resource(gear, "gears.example.com")
	b.set(t, gear, 0)
}

func (f *fixture) leavesTheSilent(t *testing.T) {
	b := f.bench(t)
	var listen net.ListenConfig
	silent, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	scales := newScales(t, &rest.Config{Host: "http://" + silent.Addr().String()}, b.watch)
	seen, err := scales.Get(t.Context(), b.deployment())
	if err != nil {
		t.Fatal(err)
	}
	const want = "the API server has not answered within 2s"
	if err := scales.Set(t.Context(), b.deployment(), seen, 0); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Set() = %v, want an error that says %q", err, want)
	}
	if _, err := scales.Get(t.Context(), b.widget()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Get() = %v, want an error that says %q", err, want)
	}
}
