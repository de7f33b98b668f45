package registration

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	authentication "k8s.io/client-go/kubernetes/typed/authentication/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// The webhooks of steps to zero, as in the chart, with the
// match condition that the chart gives each of them.
const (
	zeroWebhook   = "zero.celery-hpa.io"
	noticeWebhook = "notice.celery-hpa.io"
	stepCondition = "above-zero-to-zero"
	// usersCondition is the one that tells autoscalers from all others.
	usersCondition = "users"
)

// Guard is what a Keeper needs to know for the webhooks zero and notice.
type Guard struct {
	Targets admission.ZeroTargets
	// Resources may be nil: then there are Deployments and StatefulSets alone.
	Resources admission.Resources
	// Self names celery-hpa as the API server knows it; see OwnName.
	Self func(context.Context) (string, error)
}

// OwnName asks the API server by which name it knows celery-hpa. It needs no right.
func OwnName(reviews authentication.SelfSubjectReviewsGetter) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		review, err := reviews.SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return "", fmt.Errorf("ask the API server who celery-hpa is: %w", err)
		}
		return review.Status.UserInfo.Username, nil
	}
}

// guardian works out what the webhooks zero and notice are to match. What is not as
// it should be is logged once.
type guardian struct {
	Guard
	log *slog.Logger

	scalers   []string                      // autoscalers by user name, once known
	resources map[kind]schema.GroupResource // those that could be named
	unnamed   map[string]string             // why the resource of a target cannot be named, as logged
	unlisted  int                           // for how many targets there is no room, as logged
}

// kind is that of a target.
type kind struct{ apiVersion, name string }

func newGuardian(guard Guard, log *slog.Logger) *guardian {
	return &guardian{Guard: guard, log: log, resources: map[kind]schema.GroupResource{}}
}

// guarded is a target that the webhooks are asked about.
type guarded struct {
	resource schema.GroupResource
	name     string // as in "airflow/statefulsets.apps/worker"
	rank     int32  // the lowest is listed first: minReplicas of its HPA, at most 1
}

// wanted is what is to be kept of the webhooks zero and notice.
func (g *guardian) wanted(ctx context.Context) ([]wanted, error) {
	if err := g.identify(ctx); err != nil {
		return nil, err
	}
	listed, targets := g.listed()
	byScaler := byUser + list(slices.Clone(g.scalers))
	return []wanted{
		{
			webhook: zeroWebhook, given: stepCondition,
			conditions: conditions(usersCondition, byScaler, targetsCondition, targets),
			rules:      rules(listed, scaleOf),
		},
		{
			webhook: noticeWebhook, given: stepCondition,
			conditions: conditions(usersCondition, "!("+byScaler+")", targetsCondition, targets),
			rules:      rules(listed, scaleAndObjectOf),
		},
	}, nil
}

// identify learns who scales: the HPA controller, and celery-hpa. A person under whose
// name celery-hpa runs, to try it, is none: people are never refused.
func (g *guardian) identify(ctx context.Context) error {
	if g.scalers != nil {
		return nil
	}
	self, err := g.Self(ctx)
	if err != nil {
		return err
	}
	g.scalers = admission.HPAUsers()
	if strings.HasPrefix(self, "system:serviceaccount:") {
		g.scalers = append(g.scalers, self)
	}
	return nil
}

// listed are the targets that the match condition names, and its expression.
func (g *guardian) listed() ([]guarded, string) {
	all := g.guarded()
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.name
	}
	expression, n := namesExpression(names)
	if left := len(all) - n; left != g.unlisted {
		if g.unlisted = left; left > 0 {
			g.log.Warn("A match condition has no room for every target that may go to zero; the HPA's own steps to zero are not looked at for the rest",
				"listed", n, "left", left, "first", names[n])
		}
	}
	return all[:n], expression
}

// guarded are the targets, each once, those first whose HPA goes to zero itself: of
// the others the zero-scaler makes sure anyway.
func (g *guardian) guarded() []guarded {
	byName := map[string]guarded{}
	unnamed := map[string]string{}
	for _, t := range admission.Guarded(g.Targets) {
		resource, err := g.resourceOf(t)
		if err != nil {
			unnamed[t.String()] = err.Error()
			continue
		}
		name := t.Namespace + "/" + resource.Resource + "." + resource.Group + "/" + t.Name
		rank := min(t.MinReplicas, 1)
		if other, shared := byName[name]; shared {
			rank = min(rank, other.rank)
		}
		byName[name] = guarded{resource, name, rank}
	}
	g.reportUnnamed(unnamed)
	return slices.SortedFunc(maps.Values(byName), func(a, b guarded) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.name, b.name))
	})
}

// resourceOf remembers: a target is not to lose its guard because the API server cannot
// tell at the moment.
func (g *guardian) resourceOf(t target.Target) (schema.GroupResource, error) {
	of := kind{t.APIVersion, t.Kind}
	resource, err := admission.ResourceOf(g.Resources, t)
	if err != nil {
		if known, ok := g.resources[of]; ok {
			return known, nil
		}
		return resource, err
	}
	g.resources[of] = resource
	return resource, nil
}

// reportUnnamed logs each failure once.
func (g *guardian) reportUnnamed(unnamed map[string]string) {
	for name, reason := range unnamed {
		if g.unnamed[name] != reason {
			g.log.Warn("The webhooks zero and notice are not asked about a target: its resource cannot be named", "target", name, "error", reason)
		}
	}
	g.unnamed = unnamed
}

// conditions makes match conditions of names and expressions, in turn.
func conditions(texts ...string) []admissionregistrationv1.MatchCondition {
	var made []admissionregistrationv1.MatchCondition
	for pair := range slices.Chunk(texts, 2) {
		made = append(made, admissionregistrationv1.MatchCondition{Name: pair[0], Expression: pair[1]})
	}
	return made
}

// scaleOf is the resource that autoscalers and "kubectl scale" write.
func scaleOf(t guarded) []string { return []string{t.resource.Resource + "/scale"} }

// scaleAndObjectOf has the object itself as well, which "kubectl apply" and Helm write,
// where its number of replicas is known to be spec.replicas.
func scaleAndObjectOf(t guarded) []string {
	if t.resource.Group == "apps" {
		return append(scaleOf(t), t.resource.Resource)
	}
	return scaleOf(t)
}

// rules are for updates of these resources of the targets, by API group. Without
// targets there are none.
func rules(targets []guarded, of func(guarded) []string) []admissionregistrationv1.RuleWithOperations {
	resources := map[string][]string{}
	for _, t := range targets {
		resources[t.resource.Group] = append(resources[t.resource.Group], of(t)...)
	}
	var made []admissionregistrationv1.RuleWithOperations
	for _, group := range slices.Sorted(maps.Keys(resources)) {
		slices.Sort(resources[group])
		made = append(made, admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{group}, APIVersions: []string{"*"},
				Resources: slices.Compact(resources[group]), Scope: new(admissionregistrationv1.NamespacedScope),
			},
		})
	}
	return made
}
