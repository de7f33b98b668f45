package journal

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// metrics count what is done.
type metrics struct {
	wakes, sleeps, raises *prometheus.CounterVec // by target
	refusals              *prometheus.CounterVec // by target and cause
	failures              *prometheus.CounterVec // by target and action
	delayed               prometheus.Counter
	wakeSeconds           prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		wakes:  counter("celery_hpa_wakes_total", "Targets scaled up from zero by this replica.", ofTarget()...),
		sleeps: counter("celery_hpa_sleeps_total", "Targets scaled to zero by this replica.", ofTarget()...),
		raises: counter("celery_hpa_raises_total", "Targets scaled further up just after a wake, since more messages had arrived.", ofTarget()...),
		refusals: counter("celery_hpa_zero_refusals_total",
			"Steps to zero that did not pass a look at the last moment, by what was found: work (messages), busy (workers), unknown (something was not known), or another cause.", ofTarget("cause")...),
		failures: counter("celery_hpa_zero_failures_total",
			"Writes of a scale that did not succeed, by action: sleep, wake or raise.", ofTarget("action")...),
		delayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "celery_hpa_wakes_delayed_total",
			Help: "Wakes that waited for their turn, since many were due at once.",
		}),
		wakeSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "celery_hpa_wake_seconds",
			Help:    "How long a wake took, from when a message for the target was known of to the end of the write.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
}

// ofTarget are the labels of what each target has, and more.
func ofTarget(more ...string) []string { return append([]string{"namespace", "hpa"}, more...) }

func (m *metrics) register(registry prometheus.Registerer) error {
	var errs []error
	for _, c := range []prometheus.Collector{m.wakes, m.sleeps, m.raises, m.refusals, m.failures, m.delayed, m.wakeSeconds} {
		errs = append(errs, registry.Register(c))
	}
	return errors.Join(errs...)
}

func (m *metrics) byTarget() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{m.wakes, m.sleeps, m.raises, m.refusals, m.failures}
}

// of is the counter of a target; more are the values of the other labels.
func (m *metrics) of(counter *prometheus.CounterVec, t target.Target, more ...string) prometheus.Counter {
	return counter.WithLabelValues(append([]string{t.Namespace, t.HPA}, more...)...)
}

// begin gives a target its series: a rate needs the zero before the first.
func (m *metrics) begin(t target.Target) {
	for _, counter := range []*prometheus.CounterVec{m.wakes, m.sleeps, m.raises} {
		m.of(counter, t)
	}
	for _, c := range []idle.Cause{idle.Work, idle.Busy, idle.Unknown} {
		m.of(m.refusals, t, string(c))
	}
	for _, a := range []idle.Action{idle.Sleep, idle.Wake, idle.Raise} {
		m.of(m.failures, t, a.String())
	}
}

// forget drops the series of a target.
func (m *metrics) forget(t target.Target) {
	for _, counter := range m.byTarget() {
		counter.DeletePartialMatch(prometheus.Labels{"namespace": t.Namespace, "hpa": t.HPA})
	}
}

// collector shows what holds for each target now.
type collector struct {
	journal                            *Journal
	asleep, remaining, mistaken, cause *prometheus.Desc
}

func newCollector(j *Journal) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, ofTarget(labels...), nil)
	}
	return &collector{
		journal: j,
		asleep: desc("celery_hpa_target_asleep_seconds",
			"For how long the target is at zero, as far as it was seen; 0 while it is awake."),
		remaining: desc("celery_hpa_target_idle_window_remaining_seconds",
			"What is left of the target's idle window; absent while none runs."),
		mistaken: desc("celery_hpa_target_mistaken",
			"Whether the target's HPA asks for scaling to zero in a way that cannot be followed (1), or not (0)."),
		cause: desc("celery_hpa_target_cause",
			"Always 1; the label says why the target keeps its size or changes it, as this replica decided last: work, busy, unknown, foreign, paused, above, window, gaps, standby, hpa, idle, asleep, stranded, ending or arrived. Absent before the first decision and while the target is mistaken.",
			"cause"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.asleep, c.remaining, c.mistaken, c.cause} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(found chan<- prometheus.Metric) {
	now := time.Now()
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	for n, r := range c.journal.records {
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			found <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{n.namespace, n.hpa}, labels...)...)
		}
		asleep, mistaken := 0.0, 0.0
		if !r.asleepSince.IsZero() {
			asleep = now.Sub(r.asleepSince).Seconds()
		}
		if r.mistake != "" {
			mistaken = 1
		}
		gauge(c.asleep, asleep)
		gauge(c.mistaken, mistaken)
		if left, runs := r.remaining(now); runs {
			gauge(c.remaining, left.Seconds())
		}
		if !r.decided.IsZero() {
			gauge(c.cause, 1, string(r.decision.Cause))
		}
	}
}
