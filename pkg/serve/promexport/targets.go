package promexport

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// TargetReader gives what HPAs scale on metrics of ours, without waiting.
type TargetReader interface {
	All() []target.Target
}

// ScaleReader gives the scale of a Deployment or StatefulSet as it was last seen,
// without waiting.
type ScaleReader interface {
	Scale(ref fleet.Ref) (fleet.Scale, error)
}

// Targets is a prometheus.Collector of the sizes of what HPAs scale on metrics of ours.
// It is safe for concurrent use and does no I/O.
type Targets struct {
	targets                    TargetReader
	scales                     ScaleReader
	replicas, minimum, maximum *prometheus.Desc
}

var _ prometheus.Collector = (*Targets)(nil)

// NewTargets makes a collector.
func NewTargets(targets TargetReader, scales ScaleReader) *Targets {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"namespace", "hpa"}, nil)
	}
	return &Targets{
		targets: targets, scales: scales,
		replicas: desc("celery_hpa_target_replicas",
			"Replicas that the target of the HPA is to have now (spec.replicas); absent while that is not known, and for kinds other than Deployment and StatefulSet."),
		minimum: desc("celery_hpa_target_min_replicas", "The HPA's minReplicas."),
		maximum: desc("celery_hpa_target_max_replicas", "The HPA's maxReplicas."),
	}
}

// Describe implements prometheus.Collector.
func (e *Targets) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.replicas, e.minimum, e.maximum} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (e *Targets) Collect(metrics chan<- prometheus.Metric) {
	for _, t := range e.targets.All() {
		gauge := func(desc *prometheus.Desc, n int32) {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), t.Namespace, t.HPA)
		}
		gauge(e.minimum, t.MinReplicas)
		gauge(e.maximum, t.MaxReplicas)
		ref, ok := drain.FleetOf(t)
		if !ok {
			continue
		}
		if scale, err := e.scales.Scale(ref); err == nil {
			gauge(e.replicas, scale.Replicas)
		}
	}
}
