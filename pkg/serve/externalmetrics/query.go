package externalmetrics

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
)

// query is a selector applied to the brokers of one namespace.
type query struct {
	namespace string
	selector  labels.Selector
	brokers   []*snapshot.Broker
	queues    []string // those asked for by name, sorted; nil if none is
}

// newQuery narrows the brokers to those that the selector can match.
func newQuery(all []*snapshot.Broker, namespace string, selector labels.Selector) (*query, error) {
	if len(all) == 0 {
		return nil, notFound("namespace %s has no CeleryBroker, and a broker's metrics exist in its own namespace only", namespace)
	}
	requirements, selectable := selector.Requirements()
	if !selectable {
		return nil, notFound("the selector matches nothing")
	}
	if err := checkLabels(requirements); err != nil {
		return nil, err
	}
	brokers, err := narrow(all, requirements)
	if err != nil {
		return nil, err
	}
	return &query{namespace: namespace, selector: selector, brokers: brokers, queues: named(requirements, LabelQueue)}, nil
}

// matches returns every queue that the selector matches, ordered by broker and
// label, never none without an error.
func (q *query) matches() ([]match, error) {
	if err := q.checkQueues(); err != nil {
		return nil, err
	}
	var found []match
	labelled := labels.Set{} // one for all: there may be thousands
	for _, b := range q.brokers {
		candidates := q.candidates(b)
		found = slices.Grow(found, len(candidates))
		labelled[LabelBroker] = b.Ref.Name
		for _, label := range candidates {
			labelled[LabelQueue] = label
			if q.selector.Matches(labelled) {
				found = append(found, match{broker: b, label: label})
			}
		}
	}
	if q.queues == nil {
		if err := q.checkComplete(); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, notFound("no queue in namespace %s matches the selector %q", q.namespace, q.selector)
	}
	return found, nil
}

// candidates are the labels of a broker that are worth matching.
func (q *query) candidates(b *snapshot.Broker) []string {
	if q.queues == nil {
		return b.Labels()
	}
	known := make([]string, 0, len(q.queues))
	for _, label := range q.queues {
		if b.Has(label) {
			known = append(known, label)
		}
	}
	return known
}

// checkQueues refuses a queue that is asked for by name and that no broker has.
// While a broker may have it without that being known yet, the whole sum is
// unknown.
func (q *query) checkQueues() error {
	for _, label := range q.queues {
		var pending []error
		known := false
		for _, b := range q.brokers {
			if b.Has(label) {
				known = true
			} else if err := b.Incomplete(); err != nil {
				pending = append(pending, err)
			}
		}
		err := errors.Join(pending...)
		switch {
		case err != nil && known:
			return unavailable(fmt.Errorf("another broker has queue %s, but this one may have it too (name a broker in the selector to ask it alone): %w", label, err))
		case err != nil:
			return unavailable(err)
		case !known:
			return q.unknownQueue(label)
		}
	}
	return nil
}

// checkComplete refuses an answer over all queues while some may be missing.
func (q *query) checkComplete() error {
	var errs []error
	for _, b := range q.brokers {
		errs = append(errs, b.Incomplete())
	}
	if err := errors.Join(errs...); err != nil {
		return unavailable(err)
	}
	return nil
}

func (q *query) unknownQueue(label string) error {
	var known []string
	for _, b := range q.brokers {
		known = append(known, b.Labels()...)
	}
	return notFound("no broker of namespace %s has a queue %q%s; a queue that exists only while it is in use can be declared in spec.queues of its CeleryBroker",
		q.namespace, label, suggest(label, known))
}

// checkLabels refuses labels that no queue metric has: a selector with one can
// match nothing, or everything, by mistake only.
func checkLabels(requirements labels.Requirements) error {
	for _, r := range requirements {
		if r.Key() != LabelBroker && r.Key() != LabelQueue {
			return notFound("queue metrics have no label %q; their labels are %s and %s", r.Key(), LabelBroker, LabelQueue)
		}
	}
	return nil
}

// narrow keeps the brokers that the selector's requirements on the broker's
// name allow.
func narrow(all []*snapshot.Broker, requirements labels.Requirements) ([]*snapshot.Broker, error) {
	var names []string
	for _, b := range all {
		names = append(names, b.Ref.Name)
	}
	for _, wanted := range named(requirements, LabelBroker) {
		if !slices.Contains(names, wanted) {
			return nil, notFound("namespace %s has no CeleryBroker %q%s", all[0].Ref.Namespace, wanted, suggest(wanted, names))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(b *snapshot.Broker) bool {
		return slices.ContainsFunc(requirements, func(r labels.Requirement) bool {
			return r.Key() == LabelBroker && !r.Matches(labels.Set{LabelBroker: b.Ref.Name})
		})
	}), nil
}

// named returns the values that the requirements demand of a label by name, sorted, nil
// if they demand none.
func named(requirements labels.Requirements, key string) []string {
	var values []string
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if r.Key() == key {
				values = append(values, r.ValuesUnsorted()...)
			}
		default: // the others exclude, or ask for the label alone
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// suggest names the closest of the known names, or all of them where they are
// few and none is close, as the end of a sentence.
func suggest(wanted string, known []string) string {
	const most = 3
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	if len(known) == 0 {
		return " (none is known)"
	}
	distance := func(name string) int { return levenshtein.ComputeDistance(wanted, name) }
	slices.SortStableFunc(known, func(a, b string) int { return distance(a) - distance(b) })
	closest := known[:min(most, len(known))]
	return fmt.Sprintf(" (closest of the known: %s)", strings.Join(closest, ", "))
}
