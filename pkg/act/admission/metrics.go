package admission

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// result is how a request of the victims webhook ended.
type result string

// The results. All requests are allowed.
const (
	// marked: the costs of the pods were as they should be, or are so now.
	marked result = "marked"
	// failed: not every cost could be written in time.
	failed result = "failed"
	// unknown: nothing is known of the fleet's workers.
	unknown result = "unknown"
	// dryRun: nothing was to be written.
	dryRun result = "dry_run"
	// ignored: no scale-down of a Deployment that an HPA with our metrics scales.
	ignored result = "ignored"
)

// metrics count what the victims webhook does.
type metrics struct {
	requests *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "celery_hpa_victims_total",
			Help: "Requests of the victims webhook by result: marked, failed (not every cost was written in time), unknown (nothing is known of the workers), dry_run, ignored (no scale-down of ours).",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "celery_hpa_victims_duration_seconds",
			Help:    "How long a scale-down waited for the costs of its pods to be written, failures included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12), // 1 ms to 2 s
		}),
	}
	for _, r := range []result{marked, failed, unknown, dryRun, ignored} {
		m.requests.WithLabelValues(string(r)) // a rate needs the zero before the first
	}
	if err := errors.Join(registry.Register(m.requests), registry.Register(m.duration)); err != nil {
		return nil, fmt.Errorf("register the metrics of the victims webhook: %w", err)
	}
	return m, nil
}

func (m *metrics) count(r result) { m.requests.WithLabelValues(string(r)).Inc() }
