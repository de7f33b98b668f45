package admission_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const nowhere = "https://127.0.0.1:1"

func (f *fixture) testRegistration(t *testing.T) {
	t.Run("what is written, and only if it differs", f.writesWhatDiffers)
	t.Run("applying the manifest again changes nothing", f.outlivesApply)
	t.Run("what somebody changes is put right", f.repairs)
	t.Run("without its own condition a webhook matches nothing", f.withdraws)
	t.Run("several keepers agree", f.keepersAgree)
	t.Run("a kind that cannot be named is left out", f.leavesUnnamedOut)
	t.Run("people are no autoscalers, whoever runs celery-hpa", f.identifiesScalers)
	t.Run("a webhook that trusts nobody trusts as victims does", f.copiesTrust)
	t.Run("as many are listed as there is room for", f.listsWhatFits)
}

// kept is what a keeper writes into a webhook.
type kept struct {
	Users, Targets string
	Rules          []string // like "apps deployments/scale", sorted
}

const (
	byScaler = `request.?userInfo.?username.orValue('') in ["system:kube-controller-manager", "` + ourUser + `", "` + hpaUser + `"]`
	named    = `(request.?namespace.orValue('') + '/' + request.?resource.?resource.orValue('') + '.' + request.?resource.?group.orValue('') + '/' + request.?name.orValue('')) in `
)

// keeps reads what is kept of the webhooks zero and notice.
func (f *fixture) keeps(t *testing.T) map[string]kept {
	t.Helper()
	found := map[string]kept{}
	for _, w := range f.configuration(t).Webhooks {
		if w.Name == "victims.celery-hpa.io" {
			continue
		}
		k := kept{}
		for _, c := range w.MatchConditions {
			switch c.Name {
			case "users":
				k.Users = c.Expression
			case "targets":
				k.Targets = c.Expression
			}
		}
		for _, r := range w.Rules {
			for _, resource := range r.Resources {
				k.Rules = append(k.Rules, fmt.Sprintf("%v %v %s", r.Operations, r.APIGroups, resource))
			}
		}
		slices.Sort(k.Rules)
		found[w.Name] = k
	}
	return found
}

// wantKept is what is to be kept for these targets.
func wantKept(names string, zero, notice []string) map[string]kept {
	return map[string]kept{
		"zero.celery-hpa.io":   {Users: byScaler, Targets: names, Rules: zero},
		"notice.celery-hpa.io": {Users: "!(" + byScaler + ")", Targets: names, Rules: notice},
	}
}

func (f *fixture) awaitKept(t *testing.T, want map[string]kept) {
	t.Helper()
	eventually.Succeeds(t, patience, "the webhooks are kept", func() error {
		if diff := cmp.Diff(want, f.keeps(t)); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func (f *fixture) configuration(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	object, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), configurationName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// change changes the configuration as somebody with a mind of his own would.
func (f *fixture) change(t *testing.T, change func(webhook *admissionregistrationv1.ValidatingWebhook)) {
	t.Helper()
	for {
		object := f.configuration(t)
		for i := range object.Webhooks {
			change(&object.Webhooks[i])
		}
		_, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(t.Context(), object, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

const (
	scaleOfDeployments  = "[UPDATE] [apps] deployments/scale"
	scaleOfStatefulSets = "[UPDATE] [apps] statefulsets/scale"
	scaleOfThings       = "[UPDATE] [example.org] things/scale"
	theDeployments      = "[UPDATE] [apps] deployments"
	theStatefulSets     = "[UPDATE] [apps] statefulsets"
)

// oneDeployment is what is kept for the Deployment n/a alone.
func oneDeployment() map[string]kept {
	return wantKept(named+`["n/deployments.apps/a"]`, []string{scaleOfDeployments}, []string{theDeployments, scaleOfDeployments})
}

func (f *fixture) writesWhatDiffers(t *testing.T) {
	f.register(t, nowhere)
	before := f.configuration(t).Webhooks
	d, s, other := optedIn(deployment("n", "a"), 1), optedIn(statefulSet("n", "a"), 1), optedIn(thing("n", "a"), 1)
	without, aside := optedIn(deployment("n", "b"), 1), optedIn(deployment("n", "c"), 1)
	without.Signals[0].Metric = "celery_busy_workers"
	aside.Zero.Wanted = false
	k := newKnown(d)
	running := f.keepAs(t, ourUser, k)
	f.awaitKept(t, oneDeployment())
	for _, tt := range []struct {
		rule    string
		targets []target.Target
		want    map[string]kept
	}{
		{"none matches nothing", nil, wantKept("false", nil, nil)},
		{"those alone that ask for zero and name a queue", []target.Target{without, d, aside}, oneDeployment()},
		{"each kind, each once", []target.Target{other, s, d, d}, wantKept(
			named+`["n/deployments.apps/a", "n/statefulsets.apps/a", "n/things.example.org/a"]`,
			[]string{scaleOfDeployments, scaleOfStatefulSets, scaleOfThings},
			[]string{theDeployments, scaleOfDeployments, theStatefulSets, scaleOfStatefulSets, scaleOfThings},
		)},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			k.set(tt.targets...)
			f.awaitKept(t, tt.want)
		})
	}
	k.set(d, s, other) // the order is no difference
	running.awaitLook(t)
	k.set(d)
	f.awaitKept(t, oneDeployment())
	if n := running.objects.updates.Load(); n != 5 {
		t.Errorf("written %d times, want 5: one for each difference", n)
	}
	if text := running.log.String(); text != "" {
		t.Errorf("want nothing to be said:\n%s", text)
	}
	f.checkTheRest(t, before)
}

// checkTheRest compares what is not the keeper's.
func (f *fixture) checkTheRest(t *testing.T, before []admissionregistrationv1.ValidatingWebhook) {
	t.Helper()
	rest := func(webhooks []admissionregistrationv1.ValidatingWebhook) []admissionregistrationv1.ValidatingWebhook {
		for i := range webhooks {
			if webhooks[i].Name != "victims.celery-hpa.io" {
				webhooks[i].Rules = nil
			}
			webhooks[i].MatchConditions = slices.DeleteFunc(webhooks[i].MatchConditions, func(c admissionregistrationv1.MatchCondition) bool {
				return c.Name == "users" || c.Name == "targets"
			})
		}
		return webhooks
	}
	if diff := cmp.Diff(rest(before), rest(f.configuration(t).Webhooks)); diff != "" {
		t.Errorf("what is not the keeper's (-before +after):\n%s", diff)
	}
}

func (f *fixture) outlivesApply(t *testing.T) {
	f.register(t, nowhere)
	running := f.keepAs(t, ourUser, newKnown(optedIn(deployment("n", "a"), 1)))
	f.awaitKept(t, oneDeployment())
	before := f.configuration(t)
	applied := before.Annotations["kubectl.kubernetes.io/last-applied-configuration"]
	for _, args := range [][]string{{"apply"}, {"apply", "--server-side"}, {"apply", "--server-side", "--force-conflicts"}} {
		if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(applied), append(args, "-f", "-")...); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before.Webhooks, f.configuration(t).Webhooks); diff != "" {
			t.Errorf("after kubectl %q (-before +after):\n%s", args, diff)
		}
	}
	if n := running.objects.updates.Load(); n != 1 {
		t.Errorf("the keeper has written %d times, want once", n)
	}
}

func (f *fixture) repairs(t *testing.T) {
	f.register(t, nowhere)
	k := newKnown(optedIn(deployment("n", "a"), 1))
	f.keepAs(t, ourUser, k)
	f.awaitKept(t, oneDeployment())
	conditions := func(name, expression string) func(*admissionregistrationv1.ValidatingWebhook) {
		return func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = slices.DeleteFunc(w.MatchConditions, func(c admissionregistrationv1.MatchCondition) bool { return c.Name == name })
			if expression != "" {
				w.MatchConditions = append(w.MatchConditions, admissionregistrationv1.MatchCondition{Name: name, Expression: expression})
			}
		}
	}
	for _, tt := range []struct {
		rule   string
		change func(*admissionregistrationv1.ValidatingWebhook)
	}{
		{"users that are everybody", conditions("users", "true")},
		{"users that are missing", conditions("users", "")},
		{"targets that are missing", conditions("targets", "")},
		{"rules that are missing", func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = nil }},
		{"rules for all", func(w *admissionregistrationv1.ValidatingWebhook) {
			if w.Name != "victims.celery-hpa.io" {
				w.Rules[0].Resources = []string{"*/scale"}
			}
		}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			f.change(t, tt.change)
			k.change(func() {}) // has the keeper compare before it would by itself
			f.awaitKept(t, oneDeployment())
		})
	}
	t.Run("the whole object, though nothing else has changed", func(t *testing.T) {
		f.unregister(t)
		f.register(t, nowhere)
		f.awaitKept(t, oneDeployment())
	})
}

func (f *fixture) withdraws(t *testing.T) {
	f.register(t, nowhere)
	k := newKnown(optedIn(deployment("n", "a"), 1))
	running := f.keepAs(t, ourUser, k)
	f.awaitKept(t, oneDeployment())
	f.change(t, func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchConditions = nil })
	k.change(func() {})
	eventually.Succeeds(t, patience, "the rules are gone", func() error {
		for _, w := range f.configuration(t).Webhooks {
			if w.Name != "victims.celery-hpa.io" && len(w.Rules) > 0 {
				return errors.New(w.Name + " has rules")
			}
		}
		return nil
	})
	eventually.Succeeds(t, patience, "it is said", func() error {
		if text := running.log.String(); strings.Count(text, "lacks its match condition above-zero-to-zero") != 2 {
			return errors.New(text)
		}
		return nil
	})
}

func (f *fixture) keepersAgree(t *testing.T) {
	f.register(t, nowhere)
	k := newKnown()
	var all []keeping
	for range 8 {
		all = append(all, f.keepAs(t, ourUser, k))
	}
	for _, w := range []workload{deployment("n", "b"), deployment("n", "c"), deployment("n", "a")} {
		k.set(optedIn(w, 1))
		eventually.Succeeds(t, patience, "the target is listed", func() error {
			if targets := f.keeps(t)["zero.celery-hpa.io"].Targets; !strings.Contains(targets, w.Name+`"`) {
				return errors.New(targets)
			}
			return nil
		})
	}
	f.awaitKept(t, oneDeployment())
	for _, one := range all {
		if text := one.log.String(); text != "" {
			t.Errorf("want no word of conflicts:\n%s", text)
		}
	}
}

func (f *fixture) leavesUnnamedOut(t *testing.T) {
	f.register(t, nowhere)
	other, unnamed := optedIn(thing("n", "a"), 1), optedIn(deployment("n", "b"), 1)
	unnamed.APIVersion, unnamed.Kind = "example.org/v1", "Nothing"
	k := newKnown(other, unnamed, optedIn(deployment("n", "a"), 1))
	running := f.keepAs(t, ourUser, k)
	both := wantKept(named+`["n/deployments.apps/a", "n/things.example.org/a"]`,
		[]string{scaleOfDeployments, scaleOfThings}, []string{theDeployments, scaleOfDeployments, scaleOfThings})
	f.awaitKept(t, both)
	k.change(func() { k.lost = true }) // what was known stays known
	running.awaitLook(t)
	k.change(func() {})
	running.awaitLook(t)
	if diff := cmp.Diff(both, f.keeps(t)); diff != "" {
		t.Errorf("while no kind can be named (-want +got):\n%s", diff)
	}
	if text := running.log.String(); strings.Count(text, "there is no kind Nothing") != 1 || strings.Contains(text, "Thing n/a") {
		t.Errorf("want the one that is not known said once:\n%s", text)
	}
}

func (f *fixture) identifiesScalers(t *testing.T) {
	f.register(t, nowhere)
	const elsewhere = "system:serviceaccount:elsewhere:celery"
	for user, want := range map[string]string{
		elsewhere: strings.Replace(byScaler, ourUser, elsewhere, 1),
		"jane":    strings.Replace(byScaler, `"`+ourUser+`", `, "", 1),
	} {
		t.Run(user, func(t *testing.T) {
			f.keepAs(t, user, newKnown(optedIn(deployment("n", "a"), 1)))
			eventually.Succeeds(t, patience, "the users are known", func() error {
				if got := f.keeps(t)["zero.celery-hpa.io"].Users; got != want {
					return fmt.Errorf("%s, want %s", got, want)
				}
				return nil
			})
		})
	}
}

func (f *fixture) copiesTrust(t *testing.T) {
	f.register(t, nowhere)
	f.change(t, func(w *admissionregistrationv1.ValidatingWebhook) {
		if w.Name != "victims.celery-hpa.io" {
			w.ClientConfig.CABundle = nil
		}
	})
	f.keepAs(t, ourUser, newKnown())
	eventually.Succeeds(t, patience, "each trusts the same", func() error {
		for _, w := range f.configuration(t).Webhooks {
			if diff := cmp.Diff(string(f.cluster.CABundle()), string(w.ClientConfig.CABundle)); diff != "" {
				return errors.New(w.Name + ": " + diff)
			}
		}
		return nil
	})
}

// listsWhatFits has the API server evaluate the longest conditions that there are.
func (f *fixture) listsWhatFits(t *testing.T) {
	f.register(t, nowhere)
	namespace := f.namespace(t)
	last, other := deployment(namespace, "zzz"), deployment(namespace, "other")
	f.apply(t, last.document(1)+other.document(1))
	k := newKnown(append(many(5000), optedIn(last, 0))...)
	running := f.keepAs(t, ourUser, k)
	eventually.Succeeds(t, patience, "the HPA's step to zero does not pass", func() error {
		err := f.hpa.update(t, last, 0)
		if err == nil {
			f.expect(t, "a wake", last, f.hpa.update(t, last, 1), 1)
			return errors.New("it did")
		}
		if !apierrors.IsInternalError(err) {
			t.Fatal(err)
		}
		return nil
	})
	f.expect(t, "the HPA's PUT", other, f.hpa.update(t, other, 0), 0)
	f.expect(t, "a person's PATCH", other, f.person.patch(t, other, 0), 0)
	f.expect(t, "a person's PATCH", last, f.person.patch(t, last, 0), 0)
	f.checkConditionsEvaluate(t)
	targets := f.keeps(t)["zero.celery-hpa.io"].Targets
	listed := strings.Count(targets, ", ") + 1
	if listed < 1500 || listed > 5000 || len(targets) > 100_000 || len(targets) < 99_900 {
		t.Errorf("%d listed in %d characters, want as many as fit into 100,000", listed, len(targets))
	}
	if text := running.log.String(); !strings.Contains(text, fmt.Sprintf("listed=%d left=%d", listed, 5001-listed)) || strings.Count(text, "\n") != 1 {
		t.Errorf("want it said once how many are left out:\n%s", text)
	}
	t.Logf("%d targets are listed", listed)
	k.set(optedIn(last, 0))
	eventually.Succeeds(t, patience, "there is room again", func() error {
		if targets := f.keeps(t)["zero.celery-hpa.io"].Targets; targets != named+`["`+namespace+`/deployments.apps/zzz"]` {
			return errors.New(targets)
		}
		return nil
	})
}
