package promexport_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

var (
	good = queue.BrokerRef{Namespace: "airflow", Name: "good"}
	bad  = queue.BrokerRef{Namespace: "airflow", Name: "bad"}
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func world() *snapshot.Store {
	store := snapshot.New()
	known := func(n int64) queue.Count { return queue.Known(n, t0) }
	store.Declare(snapshot.Declaration{Ref: good, MaxAge: 10 * time.Second})
	store.Declare(snapshot.Declaration{Ref: bad, MaxAge: 10 * time.Second})
	store.Fail(bad, errors.New("connection refused"), t0)
	delayed := known(4)
	store.Put(good, &queue.Sample{At: t0, Unattributed: 1, Delayed: &delayed, Degraded: errors.New("no right"), Queues: map[string]queue.Depth{
		"default": {Backlog: known(5), InFlight: queue.Known(3, t0.Add(-5*time.Second)), Scheduled: known(1)},
		"half":    {Backlog: known(2), InFlight: queue.Unknown(errors.New("no right")), Scheduled: queue.Unknown(errors.New("no right"))},
	}})
	return store
}

func TestUnknownHasNoSeries(t *testing.T) {
	exporter := promexport.New(world(), func() time.Time { return t0.Add(2 * time.Second) })
	exporter.Sampled(good, time.Millisecond, nil)
	exporter.Sampled(bad, time.Millisecond, errors.New("connection refused"))
	const want = `
# HELP celery_hpa_broker_degraded Whether the latest good sample lacks a part of the broker (1), RabbitMQ's management API for example, or not (0).
# TYPE celery_hpa_broker_degraded gauge
celery_hpa_broker_degraded{broker="good",namespace="airflow"} 1
# HELP celery_hpa_broker_delayed_messages Messages that the broker itself holds back until their time (Celery's native delayed delivery); they are no backlog.
# TYPE celery_hpa_broker_delayed_messages gauge
celery_hpa_broker_delayed_messages{broker="good",namespace="airflow"} 4
# HELP celery_hpa_broker_queues Queues that are known of the broker.
# TYPE celery_hpa_broker_queues gauge
celery_hpa_broker_queues{broker="good",namespace="airflow"} 2
# HELP celery_hpa_broker_unattributed_messages Messages that workers hold and that could not be assigned to any queue.
# TYPE celery_hpa_broker_unattributed_messages gauge
celery_hpa_broker_unattributed_messages{broker="good",namespace="airflow"} 1
# HELP celery_hpa_broker_up Whether the latest attempt to sample the broker succeeded (1) or failed (0).
# TYPE celery_hpa_broker_up gauge
celery_hpa_broker_up{broker="bad",namespace="airflow"} 0
celery_hpa_broker_up{broker="good",namespace="airflow"} 1
# HELP celery_hpa_count_age_seconds Age of the broker's oldest known count of a kind (backlog or in_flight), at the most; absent while none is known.
# TYPE celery_hpa_count_age_seconds gauge
celery_hpa_count_age_seconds{broker="good",count="backlog",namespace="airflow"} 2
celery_hpa_count_age_seconds{broker="good",count="in_flight",namespace="airflow"} 7
# HELP celery_hpa_sample_age_seconds Age of the broker's latest good sample; absent before the first.
# TYPE celery_hpa_sample_age_seconds gauge
celery_hpa_sample_age_seconds{broker="good",namespace="airflow"} 2
# HELP celery_hpa_samples_total Attempts to sample the broker, by result: success or failure.
# TYPE celery_hpa_samples_total counter
celery_hpa_samples_total{broker="bad",namespace="airflow",result="failure"} 1
celery_hpa_samples_total{broker="good",namespace="airflow",result="success"} 1
# HELP celery_queue_backlog Messages in the queue that a worker could take now, over all priorities.
# TYPE celery_queue_backlog gauge
celery_queue_backlog{broker="good",namespace="airflow",queue="default"} 5
celery_queue_backlog{broker="good",namespace="airflow",queue="half"} 2
# HELP celery_queue_in_flight Messages of the queue that a worker holds and has not finished: reserved, executing, or waiting for their ETA.
# TYPE celery_queue_in_flight gauge
celery_queue_in_flight{broker="good",namespace="airflow",queue="default"} 3
# HELP celery_queue_scheduled Messages in flight that a worker holds for an ETA or countdown that has not come.
# TYPE celery_queue_scheduled gauge
celery_queue_scheduled{broker="good",namespace="airflow",queue="default"} 1
# HELP celery_queue_tasks The work there is now: backlog plus in flight minus scheduled.
# TYPE celery_queue_tasks gauge
celery_queue_tasks{broker="good",namespace="airflow",queue="default"} 7
`
	names := []string{
		"celery_hpa_broker_queues", "celery_hpa_broker_unattributed_messages", "celery_hpa_broker_up",
		"celery_hpa_sample_age_seconds", "celery_hpa_samples_total",
		"celery_hpa_broker_degraded", "celery_hpa_broker_delayed_messages", "celery_hpa_count_age_seconds",
		"celery_queue_backlog", "celery_queue_in_flight", "celery_queue_scheduled", "celery_queue_tasks",
	}
	if err := testutil.CollectAndCompare(exporter, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestStaleCountsHaveNoSeries(t *testing.T) {
	exporter := promexport.New(world(), func() time.Time { return t0.Add(11 * time.Second) })
	if n := testutil.CollectAndCount(exporter, "celery_queue_backlog", "celery_queue_tasks", "celery_hpa_broker_delayed_messages"); n != 0 {
		t.Errorf("%d series of counts that are over the maximum age, want none", n)
	}
}

func TestABrokerThatIsGoneLeavesNoSeries(t *testing.T) {
	store := world()
	exporter := promexport.New(store, func() time.Time { return t0 })
	exporter.Sampled(good, time.Millisecond, nil)
	store.Forget(good)
	store.Forget(bad)
	exporter.Forget(good)
	if n := testutil.CollectAndCount(exporter); n != 0 {
		t.Errorf("%d series, want none", n)
	}
}

func TestTheMetricsKeepToTheConventions(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	exporter := promexport.New(world(), func() time.Time { return t0 })
	exporter.Sampled(good, time.Millisecond, nil)
	registry.MustRegister(exporter)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
