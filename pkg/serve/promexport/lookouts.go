package promexport

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Lookouts is a prometheus.Collector of how closely the queues of targets that sleep
// are watched, and the recorder of the loops that do it. It is safe for concurrent use
// and does no I/O.
type Lookouts struct {
	told     *prometheus.GaugeVec
	queues   *prometheus.GaugeVec
	reads    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

var _ prometheus.Collector = (*Lookouts)(nil)

// NewLookouts makes a collector.
func NewLookouts() *Lookouts {
	ofBroker := []string{"namespace", "broker"}
	return &Lookouts{
		told: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "celery_hpa_lookout_told",
			Help: "Whether the broker itself tells of messages for targets that sleep (1), or their queues are read again and again (0); absent until a target has slept.",
		}, ofBroker),
		queues: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "celery_hpa_lookout_queues",
			Help: "Queues that the latest read for targets that sleep has read.",
		}, ofBroker),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "celery_hpa_lookout_reads_total",
			Help: "Reads of the queues of targets that sleep, by result: success or failure.",
		}, append(ofBroker[:2:2], "result")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "celery_hpa_lookout_read_duration_seconds",
			Help:    "How long one read of the queues of targets that sleep took, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14), // 0.1 ms to 0.8 s
		}, ofBroker),
	}
}

// Lookout records that the queues of a broker are watched, and whether it tells of
// messages.
func (l *Lookouts) Lookout(ref queue.BrokerRef, telling bool, _ error) {
	l.told.WithLabelValues(ref.Namespace, ref.Name).Set(value(telling))
}

// Read records one read.
func (l *Lookouts) Read(ref queue.BrokerRef, queues int, took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	l.reads.WithLabelValues(ref.Namespace, ref.Name, result).Inc()
	l.duration.WithLabelValues(ref.Namespace, ref.Name).Observe(took.Seconds())
	l.queues.WithLabelValues(ref.Namespace, ref.Name).Set(float64(queues))
}

// Forget drops what is known of a broker that is gone.
func (l *Lookouts) Forget(ref queue.BrokerRef) {
	gone := prometheus.Labels{"namespace": ref.Namespace, "broker": ref.Name}
	l.told.DeletePartialMatch(gone)
	l.queues.DeletePartialMatch(gone)
	l.reads.DeletePartialMatch(gone)
	l.duration.DeletePartialMatch(gone)
}

// Describe implements prometheus.Collector.
func (l *Lookouts) Describe(descs chan<- *prometheus.Desc) {
	l.told.Describe(descs)
	l.queues.Describe(descs)
	l.reads.Describe(descs)
	l.duration.Describe(descs)
}

// Collect implements prometheus.Collector.
func (l *Lookouts) Collect(metrics chan<- prometheus.Metric) {
	l.told.Collect(metrics)
	l.queues.Collect(metrics)
	l.reads.Collect(metrics)
	l.duration.Collect(metrics)
}
