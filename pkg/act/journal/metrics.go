package journal

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
)

// metrics count what is done. What is counted of each target is in its record: a
// CounterVec takes 4.5 MB for the nine counters of a thousand targets.
type metrics struct {
	wakes, sleeps, raises *prometheus.Desc // by target
	refusals              *prometheus.Desc // by target and cause
	failures              *prometheus.Desc // by target and action
	delayed               prometheus.Counter
	wakeSeconds           prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		wakes:  ofTarget("celery_hpa_wakes_total", "Targets scaled up from zero by this replica."),
		sleeps: ofTarget("celery_hpa_sleeps_total", "Targets scaled to zero by this replica."),
		raises: ofTarget("celery_hpa_raises_total", "Targets scaled further up just after a wake, since more messages had arrived."),
		refusals: ofTarget("celery_hpa_zero_refusals_total",
			"Steps to zero that did not pass a look at the last moment, by what was found: work (messages), busy (workers), unknown (something was not known), or another cause.", "cause"),
		failures: ofTarget("celery_hpa_zero_failures_total",
			"Writes of a scale that did not succeed, by action: sleep, wake or raise.", "action"),
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

// ofTarget describes a metric that each target has, with further labels.
func ofTarget(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"namespace", "hpa"}, more...), nil)
}

// series is a counter of a target: its metric, and the value of the further label, empty
// if it has none.
type series struct {
	metric *prometheus.Desc
	label  string
}

// counts are those of a target. What is missing is zero.
type counts map[series]float64

// first are the series that each target has from the beginning: a rate needs the zero
// before the first.
func (m *metrics) first() []series {
	return []series{
		{m.wakes, ""},
		{m.sleeps, ""},
		{m.raises, ""},
		{m.refusals, string(idle.Work)},
		{m.refusals, string(idle.Busy)},
		{m.refusals, string(idle.Unknown)},
		{m.failures, idle.Sleep.String()},
		{m.failures, idle.Wake.String()},
		{m.failures, idle.Raise.String()},
	}
}

// of are the counts of a target, all series that it has.
func (m *metrics) of(r *record) counts {
	all := counts{}
	for _, s := range m.first() {
		all[s] = 0
	}
	maps.Copy(all, r.counts)
	return all
}

// collector shows what holds for each target now.
type collector struct {
	journal                            *Journal
	asleep, remaining, mistaken, cause *prometheus.Desc
}

func newCollector(j *Journal) *collector {
	return &collector{
		journal: j,
		asleep: ofTarget("celery_hpa_target_asleep_seconds",
			"For how long the target is at zero, as far as it was seen; 0 while it is awake."),
		remaining: ofTarget("celery_hpa_target_idle_window_remaining_seconds",
			"What is left of the target's idle window; absent while none runs."),
		mistaken: ofTarget("celery_hpa_target_mistaken",
			"Whether the target's HPA asks for scaling to zero in a way that cannot be followed (1), or not (0)."),
		cause: ofTarget("celery_hpa_target_cause",
			"Always 1; the label says why the target keeps its size or changes it, as this replica decided last: work, busy, unknown, foreign, paused, above, window, gaps, standby, hpa, idle, asleep, stranded, ending or arrived. Absent before the first decision and while the target is mistaken.",
			"cause"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	m := c.journal.metrics
	for _, d := range []*prometheus.Desc{
		m.wakes, m.sleeps, m.raises, m.refusals, m.failures, m.delayed.Desc(), m.wakeSeconds.Desc(),
		c.asleep, c.remaining, c.mistaken, c.cause,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(found chan<- prometheus.Metric) {
	c.journal.metrics.delayed.Collect(found)
	c.journal.metrics.wakeSeconds.Collect(found)
	now := time.Now()
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	for n, r := range c.journal.records {
		c.collect(n, r, now, found)
	}
}

// collect shows one target.
func (c *collector) collect(n name, r *record, now time.Time, found chan<- prometheus.Metric) {
	show := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, further ...string) {
		found <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{n.namespace, n.hpa}, further...)...)
	}
	m := c.journal.metrics
	for s, value := range m.of(r) {
		if s.metric == m.refusals || s.metric == m.failures {
			show(s.metric, prometheus.CounterValue, value, s.label)
		} else {
			show(s.metric, prometheus.CounterValue, value)
		}
	}
	asleep, mistaken := 0.0, 0.0
	if !r.asleepSince.IsZero() {
		asleep = now.Sub(r.asleepSince).Seconds()
	}
	if r.mistake != "" {
		mistaken = 1
	}
	show(c.asleep, prometheus.GaugeValue, asleep)
	show(c.mistaken, prometheus.GaugeValue, mistaken)
	if left, runs := r.remaining(now); runs {
		show(c.remaining, prometheus.GaugeValue, left.Seconds())
	}
	if !r.decided.IsZero() {
		show(c.cause, prometheus.GaugeValue, 1, string(r.decision.Cause))
	}
}
