package promexport

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// WorkerReader gives what is known of the workers of each broker, without waiting.
type WorkerReader interface {
	// Brokers returns the brokers, with why their workers are not heard.
	Brokers() map[queue.BrokerRef]error
	Of(ref queue.BrokerRef) []workers.Worker
}

// FleetReader gives the fleets of a namespace as they are now, without waiting.
type FleetReader interface {
	Fleets(namespace string) []fleet.Fleet
	// HasHost reports whether a pod may have a host name.
	HasHost(namespace, host string) bool
}

// Fleets is a prometheus.Collector of workers and their fleets, and the recorder of
// the loops that hear them. It is safe for concurrent use and does no I/O.
type Fleets struct {
	workers WorkerReader
	fleets  FleetReader // nil without a cluster
	now     func() time.Time

	numbers map[string]*prometheus.Desc // by metric name
	pods    *prometheus.Desc
	outside *prometheus.Desc
	heard   *prometheus.Desc
	events  *prometheus.CounterVec
}

var _ prometheus.Collector = (*Fleets)(nil)

// NewFleets makes a collector. Without a cluster fleets is nil. Ages are counted by
// now.
func NewFleets(heard WorkerReader, fleets FleetReader, now func() time.Time) *Fleets {
	ofFleet := []string{"namespace", "deployment", "statefulset"}
	ofBroker := []string{"namespace", "broker"}
	numbers := map[string]*prometheus.Desc{}
	for _, m := range fleet.Metrics() {
		numbers[m.Name] = prometheus.NewDesc(m.Name, m.Help, ofFleet, nil)
	}
	return &Fleets{
		workers: heard, fleets: fleets, now: now, numbers: numbers,
		pods: prometheus.NewDesc("celery_hpa_fleet_pods",
			"Pods of the fleet by what is known of their workers: unknown, starting, idle, busy or draining, those being deleted included.",
			append(ofFleet[:3:3], "state"), nil),
		outside: prometheus.NewDesc("celery_hpa_outside_workers",
			"Workers heard through the broker that run in no pod of its namespace, by state: unknown, idle, busy or draining.",
			append(ofBroker[:2:2], "state"), nil),
		heard: prometheus.NewDesc("celery_hpa_heartbeats_heard",
			"Whether the heartbeats of the broker's workers are heard (1) or not (0).", ofBroker, nil),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "celery_hpa_worker_events_total",
			Help: "Events of workers, by result: heard, or not_understood.",
		}, append(ofBroker[:2:2], "result")),
	}
}

// Heard counts an event of a worker.
func (e *Fleets) Heard(ref queue.BrokerRef, err error) {
	result := "heard"
	if err != nil {
		result = "not_understood"
	}
	e.events.WithLabelValues(ref.Namespace, ref.Name, result).Inc()
}

// Deaf drops the counters of a broker that is gone.
func (e *Fleets) Deaf(ref queue.BrokerRef) {
	e.events.DeletePartialMatch(prometheus.Labels{"namespace": ref.Namespace, "broker": ref.Name})
}

// Describe implements prometheus.Collector.
func (e *Fleets) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range e.numbers {
		descs <- d
	}
	for _, d := range []*prometheus.Desc{e.pods, e.outside, e.heard} {
		descs <- d
	}
	e.events.Describe(descs)
}

// Collect implements prometheus.Collector.
func (e *Fleets) Collect(metrics chan<- prometheus.Metric) {
	now := e.now()
	namespaces := map[string]bool{}
	for ref, deaf := range e.workers.Brokers() {
		namespaces[ref.Namespace] = true
		metrics <- prometheus.MustNewConstMetric(e.heard, prometheus.GaugeValue, value(deaf == nil), ref.Namespace, ref.Name)
		e.collectOutside(metrics, ref, now)
	}
	if e.fleets != nil {
		for namespace := range namespaces {
			for _, f := range e.fleets.Fleets(namespace) {
				e.collectFleet(metrics, f, now)
			}
		}
	}
	e.events.Collect(metrics)
}

// collectOutside counts the workers that are in no pod.
func (e *Fleets) collectOutside(metrics chan<- prometheus.Metric, ref queue.BrokerRef, now time.Time) {
	count := map[fleet.State]int{fleet.Unknown: 0, fleet.Idle: 0, fleet.Busy: 0, fleet.Draining: 0}
	for _, w := range e.workers.Of(ref) {
		if e.fleets == nil || !e.fleets.HasHost(ref.Namespace, w.Host) {
			count[fleet.Judge(w, now).State]++
		}
	}
	for state, n := range count {
		metrics <- prometheus.MustNewConstMetric(e.outside, prometheus.GaugeValue, float64(n), ref.Namespace, ref.Name, state.String())
	}
}

func (e *Fleets) collectFleet(metrics chan<- prometheus.Metric, f fleet.Fleet, now time.Time) {
	deployment, set := f.Name, ""
	if f.Kind == fleet.StatefulSet {
		deployment, set = "", f.Name
	}
	count := map[fleet.State]int{fleet.Unknown: 0, fleet.Starting: 0, fleet.Idle: 0, fleet.Busy: 0, fleet.Draining: 0}
	for _, m := range f.Members {
		count[m.State]++
	}
	for state, n := range count {
		metrics <- prometheus.MustNewConstMetric(e.pods, prometheus.GaugeValue, float64(n), f.Namespace, deployment, set, state.String())
	}
	for _, m := range fleet.Metrics() {
		if c := m.Of(f, now); c.Err == nil {
			metrics <- prometheus.MustNewConstMetric(e.numbers[m.Name], prometheus.GaugeValue, float64(c.N), f.Namespace, deployment, set)
		}
	}
}
