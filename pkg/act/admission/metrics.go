package admission

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// result is how a request ended.
type result string

// The results of the victims webhook, which allows every request.
const (
	// marked: the costs of the pods were as they should be, or are so now.
	marked result = "marked"
	// failed: not every cost could be written in time.
	failed result = "failed"
	// unknown: nothing is known of the fleet's workers; here and elsewhere.
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

// The results of the webhooks zero and notice; unknown, dryRun and ignored are others.
// Zero allows resultIdle and ignored alone, and of a dry run what it would allow
// otherwise.
const (
	// resultIdle: nothing was left to do.
	resultIdle result = "idle"
	// work: something waits, runs or is held.
	work result = "work"
	// resultPaused: by annotation.
	resultPaused result = "paused"
)

// Webhooks, as a label.
const (
	zeroLabel   = "zero"
	noticeLabel = "notice"
)

// reviews count what the webhooks zero and notice find out.
type reviews struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newReviews(registry prometheus.Registerer) (*reviews, error) {
	m := &reviews{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "celery_hpa_zero_reviews_total",
			Help: "Steps to zero that were reviewed, by webhook (zero: autoscalers, refused unless idle; notice: all others, never refused) and result: idle, work (something waits, runs or is held), unknown, paused, dry_run, ignored (no step of ours).",
		}, []string{"webhook", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "celery_hpa_zero_review_duration_seconds",
			Help:    "How long a step to zero waited for its review, by webhook.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13), // 1 ms to 4 s
		}, []string{"webhook"}),
	}
	for _, webhook := range []string{zeroLabel, noticeLabel} {
		for _, r := range []result{resultIdle, work, unknown, resultPaused, dryRun, ignored} {
			m.requests.WithLabelValues(webhook, string(r))
		}
		m.duration.WithLabelValues(webhook)
	}
	if err := errors.Join(registry.Register(m.requests), registry.Register(m.duration)); err != nil {
		return nil, fmt.Errorf("register the metrics of the webhooks zero and notice: %w", err)
	}
	return m, nil
}

func (m *reviews) count(webhook string, r result) {
	m.requests.WithLabelValues(webhook, string(r)).Inc()
}
