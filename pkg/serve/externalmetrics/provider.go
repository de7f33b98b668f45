package externalmetrics

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// The labels of a queue metric, in selectors and in answers.
const (
	LabelBroker = "broker"
	LabelQueue  = "queue"
)

// Reader gives the brokers of a namespace as they are now, without waiting.
type Reader interface {
	Namespace(namespace string) []*snapshot.Broker
}

// Provider implements provider.ExternalMetricsProvider over a Reader and a
// FleetReader. It is safe for concurrent use and does no I/O.
type Provider struct {
	reader Reader
	fleets FleetReader // nil without a cluster
	now    func() time.Time
	// unserved is told of the namespaces without a broker that are asked about.
	unserved func(namespace string)
}

var _ provider.ExternalMetricsProvider = (*Provider)(nil)

// New makes a provider. Without a cluster fleets is nil. Ages are counted by now.
func New(reader Reader, fleets FleetReader, now func() time.Time) *Provider {
	return &Provider{reader: reader, fleets: fleets, now: now, unserved: func(string) {}}
}

// TellUnserved has tell called with each namespace without a broker that is asked about
// a metric of ours. It must not block. Call it before anything is asked.
func (p *Provider) TellUnserved(tell func(namespace string)) { p.unserved = tell }

// ListAllExternalMetrics names every metric that GetExternalMetric can answer.
func (p *Provider) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	var infos []provider.ExternalMetricInfo
	for _, name := range names() {
		infos = append(infos, provider.ExternalMetricInfo{Metric: name})
	}
	return infos
}

// names lists the metrics in a fixed order.
func names() []string {
	var names []string
	for _, m := range queue.Metrics() {
		names = append(names, m.Name)
	}
	for _, m := range fleet.Metrics() {
		names = append(names, m.Name)
	}
	return names
}

// GetExternalMetric returns one item per queue, or per fleet, of the namespace that
// the selector matches. Its errors are API status errors: NotFound (404) for what
// does not exist, a misspelt queue above all; ServiceUnavailable (503) for what
// exists but is not known, with the broker and the reason. One unknown among
// several matching queues makes the whole answer an error, because the HPA
// would take the sum of the others for the truth.
func (p *Provider) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if len(p.reader.Namespace(namespace)) == 0 && slices.Contains(names(), info.Metric) {
		p.unserved(namespace)
	}
	if metric, ok := fleetMetric(info.Metric); ok {
		return p.ofFleets(metric, namespace, selector)
	}
	metric, err := findMetric(info.Metric)
	if err != nil {
		return nil, err
	}
	matches, err := p.matches(namespace, selector)
	if err != nil {
		return nil, err
	}
	now := p.now()
	items := make([]external_metrics.ExternalMetricValue, 0, len(matches))
	for _, m := range matches {
		item, err := m.value(metric, now)
		if err != nil {
			return nil, unavailable(err)
		}
		items = append(items, item)
	}
	return &external_metrics.ExternalMetricValueList{Items: items}, nil
}

// matches returns every queue of a namespace that the selector matches, never none
// without an error.
func (p *Provider) matches(namespace string, selector labels.Selector) ([]match, error) {
	q, err := newQuery(p.reader.Namespace(namespace), namespace, selector)
	if err != nil {
		return nil, err
	}
	return q.matches()
}

// match is one queue that a selector matched.
type match struct {
	broker *snapshot.Broker
	label  string
}

func (m match) value(metric queue.Metric, now time.Time) (external_metrics.ExternalMetricValue, error) {
	depth, err := m.broker.Lookup(m.label, now)
	if err != nil {
		return external_metrics.ExternalMetricValue{}, err
	}
	count := metric.Of(depth)
	if count.Err != nil {
		return external_metrics.ExternalMetricValue{}, count.Err
	}
	return external_metrics.ExternalMetricValue{
		MetricName:   metric.Name,
		MetricLabels: map[string]string{LabelBroker: m.broker.Ref.Name, LabelQueue: m.label},
		Timestamp:    metav1.NewTime(count.At),
		Value:        quantity(metric, count.N),
	}, nil
}

func quantity(metric queue.Metric, n int64) resource.Quantity {
	if metric.Milli {
		return *resource.NewMilliQuantity(n, resource.DecimalSI)
	}
	return *resource.NewQuantity(n, resource.DecimalSI)
}

func findMetric(name string) (queue.Metric, error) {
	if m, ok := queue.MetricNamed(name); ok {
		return m, nil
	}
	return queue.Metric{}, notFound("there is no metric %q; the metrics are %s", name, strings.Join(slices.Sorted(slices.Values(names())), ", "))
}

func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusNotFound,
		Reason:  metav1.StatusReasonNotFound,
		Message: fmt.Sprintf(format, args...),
	}}
}

func unavailable(err error) error { return apierrors.NewServiceUnavailable(err.Error()) }
