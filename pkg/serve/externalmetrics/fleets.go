package externalmetrics

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// The labels of a fleet metric: a fleet has one of them.
const (
	LabelDeployment  = "deployment"
	LabelStatefulSet = "statefulset"
)

// FleetReader gives the fleets of a namespace as they are now, without waiting.
type FleetReader interface {
	Fleet(ref fleet.Ref) (fleet.Fleet, error)
	Fleets(namespace string) []fleet.Fleet
	Names(namespace string, kind fleet.Kind) []string
}

// FleetLabels are the labels of a fleet's metrics.
func FleetLabels(ref fleet.Ref) map[string]string {
	if ref.Kind == fleet.StatefulSet {
		return map[string]string{LabelStatefulSet: ref.Name}
	}
	return map[string]string{LabelDeployment: ref.Name}
}

// fleetMetric finds a metric of fleets.
func fleetMetric(name string) (fleet.Metric, bool) {
	for _, m := range fleet.Metrics() {
		if m.Name == name {
			return m, true
		}
	}
	return fleet.Metric{}, false
}

// ofFleets returns one item per fleet of the namespace that the selector matches.
func (p *Provider) ofFleets(metric fleet.Metric, namespace string, selector labels.Selector) (*external_metrics.ExternalMetricValueList, error) {
	if p.fleets == nil {
		return nil, notFound("metric %s tells of Deployments and StatefulSets: it needs a cluster, which there is none of with --local", metric.Name)
	}
	if len(p.reader.Namespace(namespace)) == 0 {
		return nil, notFound("namespace %s has no CeleryBroker, and workers are heard through a broker of their own namespace only", namespace)
	}
	fleets, err := p.selectFleets(namespace, selector)
	if err != nil {
		return nil, err
	}
	now := p.now()
	items := make([]external_metrics.ExternalMetricValue, 0, len(fleets))
	for _, f := range fleets {
		item, err := fleetValue(metric, f, now)
		if err != nil {
			return nil, unavailable(err)
		}
		items = append(items, item)
	}
	return &external_metrics.ExternalMetricValueList{Items: items}, nil
}

func fleetValue(metric fleet.Metric, f fleet.Fleet, now time.Time) (external_metrics.ExternalMetricValue, error) {
	count := metric.Of(f, now)
	if count.Err != nil {
		return external_metrics.ExternalMetricValue{}, count.Err
	}
	return external_metrics.ExternalMetricValue{
		MetricName:   metric.Name,
		MetricLabels: FleetLabels(f.Ref),
		Timestamp:    metav1.NewTime(count.At),
		Value:        *resource.NewQuantity(count.N, resource.DecimalSI),
	}, nil
}

// selectFleets returns the fleets that a selector matches: those that it names, or
// else all of which a worker was ever heard; never none without an error.
func (p *Provider) selectFleets(namespace string, selector labels.Selector) ([]fleet.Fleet, error) {
	requirements, selectable := selector.Requirements()
	if !selectable {
		return nil, notFound("the selector matches nothing")
	}
	for _, r := range requirements {
		if r.Key() != LabelDeployment && r.Key() != LabelStatefulSet {
			return nil, notFound("worker metrics have no label %q; a fleet has one of %s and %s", r.Key(), LabelDeployment, LabelStatefulSet)
		}
	}
	candidates, err := p.namedFleets(namespace, requirements)
	if err != nil {
		return nil, err
	}
	var found []fleet.Fleet
	for _, f := range candidates {
		if selector.Matches(labels.Set(FleetLabels(f.Ref))) {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil, notFound("no fleet of workers in namespace %s matches the selector %q; a fleet is known by name, or once one of its workers was heard", namespace, selector)
	}
	return found, nil
}

func (p *Provider) namedFleets(namespace string, requirements labels.Requirements) ([]fleet.Fleet, error) {
	var fleets []fleet.Fleet
	asked := false
	for kind, label := range map[fleet.Kind]string{fleet.Deployment: LabelDeployment, fleet.StatefulSet: LabelStatefulSet} {
		for _, name := range named(requirements, label) {
			asked = true
			f, err := p.fleets.Fleet(fleet.Ref{Namespace: namespace, Kind: kind, Name: name})
			if err != nil {
				return nil, p.fleetError(err, namespace, kind, name)
			}
			fleets = append(fleets, f)
		}
	}
	if asked {
		return fleets, nil
	}
	return p.fleets.Fleets(namespace), nil
}

func (p *Provider) fleetError(err error, namespace string, kind fleet.Kind, name string) error {
	if errors.Is(err, fleet.ErrNoFleet) {
		return notFound("namespace %s has no %s %q%s", namespace, kind, name, suggest(name, p.fleets.Names(namespace, kind)))
	}
	return unavailable(err)
}
