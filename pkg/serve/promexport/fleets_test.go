package promexport_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// workforce has a broker whose workers are heard, one of them in no pod, and one
// whose are not.
type workforce struct{}

func (workforce) Brokers() map[queue.BrokerRef]error {
	return map[queue.BrokerRef]error{good: nil, bad: errors.New("connection refused")}
}

func (workforce) Of(ref queue.BrokerRef) []workers.Worker {
	if ref != good {
		return nil
	}
	worker := func(host string, active int64) workers.Worker {
		return workers.Worker{
			Broker: good, Node: "celery@" + host, Host: host, HeardAt: t0, Frequency: 2 * time.Second,
			Active: celery.Number{N: active, Known: true},
		}
	}
	return []workers.Worker{worker("pod", 1), worker("laptop", 0)}
}

func (workforce) HasHost(namespace, host string) bool { return namespace == "airflow" && host == "pod" }

func (workforce) Fleets(namespace string) []fleet.Fleet {
	return []fleet.Fleet{{
		Ref: fleet.Ref{Namespace: namespace, Kind: fleet.StatefulSet, Name: "worker"}, Heard: true,
		Members: []fleet.Member{
			{Pod: "worker-0", State: fleet.Busy, Ready: true, Active: queue.Known(2, t0), Slots: queue.Unknown(errors.New("not asked"))},
			{Pod: "worker-1", Ordinal: 1, State: fleet.Idle, Ready: true, Active: queue.Known(0, t0), Slots: queue.Known(4, t0)},
		},
	}}
}

func TestFleetsAreExported(t *testing.T) {
	exporter := promexport.NewFleets(workforce{}, workforce{}, func() time.Time { return t0.Add(time.Second) })
	exporter.Heard(good, nil)
	exporter.Heard(good, errors.New("not JSON"))
	const want = `
# HELP celery_busy_workers Workers that may execute a task, those included that are silent or shut down; in a StatefulSet the highest ordinal of one, plus 1.
# TYPE celery_busy_workers gauge
celery_busy_workers{deployment="",namespace="airflow",statefulset="worker"} 1
# HELP celery_hpa_fleet_pods Pods of the fleet by what is known of their workers: unknown, starting, idle, busy or draining, those being deleted included.
# TYPE celery_hpa_fleet_pods gauge
celery_hpa_fleet_pods{deployment="",namespace="airflow",state="busy",statefulset="worker"} 1
celery_hpa_fleet_pods{deployment="",namespace="airflow",state="draining",statefulset="worker"} 0
celery_hpa_fleet_pods{deployment="",namespace="airflow",state="idle",statefulset="worker"} 1
celery_hpa_fleet_pods{deployment="",namespace="airflow",state="starting",statefulset="worker"} 0
celery_hpa_fleet_pods{deployment="",namespace="airflow",state="unknown",statefulset="worker"} 0
# HELP celery_hpa_heartbeats_heard Whether the heartbeats of the broker's workers are heard (1) or not (0).
# TYPE celery_hpa_heartbeats_heard gauge
celery_hpa_heartbeats_heard{broker="bad",namespace="airflow"} 0
celery_hpa_heartbeats_heard{broker="good",namespace="airflow"} 1
# HELP celery_hpa_outside_workers Workers heard through the broker that run in no pod of its namespace, by state: unknown, idle, busy or draining.
# TYPE celery_hpa_outside_workers gauge
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="busy"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="draining"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="idle"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="unknown"} 0
celery_hpa_outside_workers{broker="good",namespace="airflow",state="busy"} 0
celery_hpa_outside_workers{broker="good",namespace="airflow",state="draining"} 0
celery_hpa_outside_workers{broker="good",namespace="airflow",state="idle"} 1
celery_hpa_outside_workers{broker="good",namespace="airflow",state="unknown"} 0
# HELP celery_hpa_worker_events_total Events of workers, by result: heard, or not_understood.
# TYPE celery_hpa_worker_events_total counter
celery_hpa_worker_events_total{broker="good",namespace="airflow",result="heard"} 1
celery_hpa_worker_events_total{broker="good",namespace="airflow",result="not_understood"} 1
# HELP celery_worker_active_tasks Tasks that execute in the fleet.
# TYPE celery_worker_active_tasks gauge
celery_worker_active_tasks{deployment="",namespace="airflow",statefulset="worker"} 2
`
	if err := testutil.CollectAndCompare(exporter, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	exporter.Deaf(good)
	if n := testutil.CollectAndCount(exporter, "celery_hpa_worker_events_total"); n != 0 {
		t.Errorf("%d counters of a broker that is gone", n)
	}
}

func TestWithoutAClusterEveryWorkerIsOutside(t *testing.T) {
	exporter := promexport.NewFleets(workforce{}, nil, func() time.Time { return t0 })
	const want = `
# HELP celery_hpa_outside_workers Workers heard through the broker that run in no pod of its namespace, by state: unknown, idle, busy or draining.
# TYPE celery_hpa_outside_workers gauge
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="busy"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="draining"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="idle"} 0
celery_hpa_outside_workers{broker="bad",namespace="airflow",state="unknown"} 0
celery_hpa_outside_workers{broker="good",namespace="airflow",state="busy"} 1
celery_hpa_outside_workers{broker="good",namespace="airflow",state="draining"} 0
celery_hpa_outside_workers{broker="good",namespace="airflow",state="idle"} 1
celery_hpa_outside_workers{broker="good",namespace="airflow",state="unknown"} 0
`
	if err := testutil.CollectAndCompare(exporter, strings.NewReader(want), "celery_hpa_outside_workers"); err != nil {
		t.Error(err)
	}
}
