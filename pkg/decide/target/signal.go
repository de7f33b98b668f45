package target

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Metrics lists the names of the metrics that make an HPA one of ours: those of
// queues, and those of worker fleets.
func Metrics() []string {
	names := []string{"celery_busy_workers", "celery_worker_active_tasks", "celery_worker_slots"}
	for _, m := range queue.Metrics() {
		names = append(names, m.Name)
	}
	return names
}

// measure takes over the metrics of an HPA. The error lists what of ours cannot be
// read.
func (t *Target) measure(metrics []autoscalingv2.MetricSpec) error {
	ours := Metrics()
	var errs []error
	for _, m := range metrics {
		if !isExternal(m) || !slices.Contains(ours, strings.ToLower(m.External.Metric.Name)) {
			t.Foreign = append(t.Foreign, describe(m))
			continue
		}
		s, err := signalOf(m.External)
		t.Signals = append(t.Signals, s)
		t.Metrics = append(t.Metrics, s.Metric)
		errs = append(errs, err)
	}
	slices.Sort(t.Metrics)
	t.Metrics = slices.Compact(t.Metrics)
	return errors.Join(errs...)
}

func isExternal(m autoscalingv2.MetricSpec) bool {
	return m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil
}

// signalOf reads a metric of ours. client-go asks for metrics in lower case, however
// the HPA writes them; and of a target's values it is averageValue that counts, if it
// is set, whatever the target's type says (pkg/controller/podautoscaler/horizontal.go
// of Kubernetes 1.37, computeStatusForExternalMetric).
func signalOf(source *autoscalingv2.ExternalMetricSource) (Signal, error) {
	s := Signal{Metric: strings.ToLower(source.Metric.Name), PerReplica: source.Target.AverageValue != nil}
	value := source.Target.Value
	if s.PerReplica {
		value = source.Target.AverageValue
	}
	if value != nil {
		s.Milli = value.MilliValue()
	}
	var err, selectorErr error
	if s.Milli <= 0 {
		err = fmt.Errorf("metric %s has no target above zero: set averageValue to what one worker is to have of it", s.Metric)
	}
	if s.Selector, selectorErr = selectorOf(source.Metric.Selector); selectorErr != nil {
		selectorErr = fmt.Errorf("metric %s: its selector cannot be read: %w", s.Metric, selectorErr)
	}
	return s, errors.Join(err, selectorErr)
}

// selectorOf reads a label selector, of which none chooses everything: the HPA writes
// it to the address as "", which does. What it cannot read chooses nothing.
//
// metav1.LabelSelectorAsSelector takes labels in a random order, and stops at the
// first mistake. An HPA with two mistakes would say now the one, now the other, and
// seem to change.
func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return labels.Everything(), nil
	}
	parts := []metav1.LabelSelector{{MatchExpressions: s.MatchExpressions}}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		parts = append(parts, metav1.LabelSelector{MatchLabels: map[string]string{key: s.MatchLabels[key]}})
	}
	selector := labels.NewSelector()
	for _, part := range parts {
		read, err := metav1.LabelSelectorAsSelector(&part)
		if err != nil {
			return labels.Nothing(), err
		}
		requirements, _ := read.Requirements()
		selector = selector.Add(requirements...)
	}
	return selector, nil
}

// describe names a metric that is not ours, as "Resource cpu".
func describe(m autoscalingv2.MetricSpec) string {
	name := ""
	switch {
	case m.Resource != nil:
		name = m.Resource.Name.String()
	case m.ContainerResource != nil:
		name = m.ContainerResource.Name.String()
	case m.Pods != nil:
		name = m.Pods.Metric.Name
	case m.Object != nil:
		name = m.Object.Metric.Name
	case m.External != nil:
		name = m.External.Metric.Name
	}
	return strings.TrimSpace(string(m.Type) + " " + name)
}
