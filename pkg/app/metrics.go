package app

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
)

// OfProcess are the collectors of what is running, and of the brokers file that it
// watches; nil where it watches none.
func OfProcess(version string, file *brokersfile.Watcher) []prometheus.Collector {
	if file == nil {
		return []prometheus.Collector{buildInfo(version)}
	}
	return []prometheus.Collector{buildInfo(version), reloadSucceeded(file), reloadedAt(file)}
}

// buildInfo is the usual constant 1 with what is running as labels.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "celery_hpa_build_info",
		Help:        "Always 1; the labels say which celery-hpa this is.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

func reloadSucceeded(w *brokersfile.Watcher) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "celery_hpa_config_last_reload_successful",
		Help: "Whether the brokers file as it is now could be read and is in use (1) or an older state is (0).",
	}, func() float64 {
		if _, err := w.Status(); err != nil {
			return 0
		}
		return 1
	})
}

func reloadedAt(w *brokersfile.Watcher) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "celery_hpa_config_last_reload_success_timestamp_seconds",
		Help: "When the brokers file was last read without an error, in seconds since 1970.",
	}, func() float64 {
		at, _ := w.Status()
		return float64(at.UnixNano()) / 1e9
	})
}
