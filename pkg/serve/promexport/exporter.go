package promexport

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Reader gives every broker as it is now, without waiting.
type Reader interface {
	All() []*snapshot.Broker
}

// Exporter is a prometheus.Collector over a Reader and the recorder of the
// sampling loops. It is safe for concurrent use and does no I/O.
type Exporter struct {
	reader Reader
	now    func() time.Time

	queues       map[string]*prometheus.Desc // by metric name
	up           *prometheus.Desc
	age          *prometheus.Desc
	known        *prometheus.Desc
	unattributed *prometheus.Desc
	countAge     *prometheus.Desc
	delayed      *prometheus.Desc
	degraded     *prometheus.Desc

	duration *prometheus.HistogramVec
	samples  *prometheus.CounterVec
}

var _ prometheus.Collector = (*Exporter)(nil)

// New makes an exporter. Ages are counted by now.
func New(reader Reader, now func() time.Time) *Exporter {
	ofBroker := []string{"namespace", "broker"}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append(ofBroker[:2:2], labels...), nil)
	}
	queues := map[string]*prometheus.Desc{}
	for _, m := range queue.Metrics() {
		queues[m.Name] = desc(m.Name, m.Help, "queue")
	}
	return &Exporter{
		reader: reader,
		now:    now,
		queues: queues,
		up:     desc("celery_hpa_broker_up", "Whether the latest attempt to sample the broker succeeded (1) or failed (0)."),
		age:    desc("celery_hpa_sample_age_seconds", "Age of the broker's latest good sample; absent before the first."),
		known:  desc("celery_hpa_broker_queues", "Queues that are known of the broker."),
		unattributed: desc("celery_hpa_broker_unattributed_messages",
			"Messages that workers hold and that could not be assigned to any queue."),
		countAge: desc("celery_hpa_count_age_seconds",
			"Age of the broker's oldest known count of a kind (backlog or in_flight), at the most; absent while none is known.", "count"),
		delayed: desc("celery_hpa_broker_delayed_messages",
			"Messages that the broker itself holds back until their time (Celery's native delayed delivery); they are no backlog."),
		degraded: desc("celery_hpa_broker_degraded",
			"Whether the latest good sample lacks a part of the broker (1), RabbitMQ's management API for example, or not (0)."),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "celery_hpa_sample_duration_seconds",
			Help:    "How long one sample of a broker took, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
		}, ofBroker),
		samples: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "celery_hpa_samples_total",
			Help: "Attempts to sample the broker, by result: success or failure.",
		}, append(ofBroker[:2:2], "result")),
	}
}

// Sampled records one attempt to sample a broker.
func (e *Exporter) Sampled(ref queue.BrokerRef, took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	e.samples.WithLabelValues(ref.Namespace, ref.Name, result).Inc()
	e.duration.WithLabelValues(ref.Namespace, ref.Name).Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (e *Exporter) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range e.queues {
		descs <- d
	}
	for _, d := range []*prometheus.Desc{e.up, e.age, e.known, e.unattributed, e.countAge, e.delayed, e.degraded} {
		descs <- d
	}
	e.duration.Describe(descs)
	e.samples.Describe(descs)
}

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(metrics chan<- prometheus.Metric) {
	now := e.now()
	for _, b := range e.reader.All() {
		e.collectBroker(metrics, b, now)
		e.collectQueues(metrics, b, now)
	}
	e.duration.Collect(metrics)
	e.samples.Collect(metrics)
}

func (e *Exporter) collectBroker(metrics chan<- prometheus.Metric, b *snapshot.Broker, now time.Time) {
	gauge := func(desc *prometheus.Desc, n float64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, n, b.Ref.Namespace, b.Ref.Name)
	}
	gauge(e.up, value(b.Sampled() && b.Failure == nil))
	if b.Sampled() {
		gauge(e.age, now.Sub(b.SampledAt()).Seconds())
		gauge(e.known, float64(len(b.Labels())))
		gauge(e.unattributed, float64(b.Unattributed()))
		gauge(e.degraded, value(b.Degraded() != nil))
		e.collectAges(metrics, b, now)
	}
	if delayed := b.Delayed(now); delayed.Err == nil {
		gauge(e.delayed, float64(delayed.N))
	}
}

// collectAges gives the age of each kind of count.
func (e *Exporter) collectAges(metrics chan<- prometheus.Metric, b *snapshot.Broker, now time.Time) {
	backlog, inFlight := b.OldestCounts()
	for count, at := range map[string]time.Time{"backlog": backlog, "in_flight": inFlight} {
		if !at.IsZero() {
			metrics <- prometheus.MustNewConstMetric(e.countAge, prometheus.GaugeValue, now.Sub(at).Seconds(),
				b.Ref.Namespace, b.Ref.Name, count)
		}
	}
}

// value is 1 for true.
func value(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (e *Exporter) collectQueues(metrics chan<- prometheus.Metric, b *snapshot.Broker, now time.Time) {
	for _, label := range b.Labels() {
		depth, err := b.Lookup(label, now)
		if err != nil {
			continue // no series: celery_hpa_broker_up and the API say why
		}
		for _, m := range queue.Metrics() {
			if c := m.Of(depth); c.Err == nil {
				metrics <- prometheus.MustNewConstMetric(e.queues[m.Name], prometheus.GaugeValue, number(m, c.N),
					b.Ref.Namespace, b.Ref.Name, label)
			}
		}
	}
}

// number is a metric's value in its unit.
func number(m queue.Metric, n int64) float64 {
	if m.Milli {
		return float64(n) / 1000
	}
	return float64(n)
}

// Forget drops the counters of a broker that is gone.
func (e *Exporter) Forget(ref queue.BrokerRef) {
	gone := prometheus.Labels{"namespace": ref.Namespace, "broker": ref.Name}
	e.samples.DeletePartialMatch(gone)
	e.duration.DeletePartialMatch(gone)
}
