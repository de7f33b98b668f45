package externalmetrics_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
)

// fleets is what is known of the fleets of namespace airflow.
type fleets map[fleet.Ref]fleet.Fleet

func (f fleets) Fleet(ref fleet.Ref) (fleet.Fleet, error) {
	if ref.Namespace != "airflow" {
		return fleet.Fleet{}, fmt.Errorf("%w: watch pods: forbidden", fleet.ErrNotWatched)
	}
	if known, ok := f[ref]; ok {
		return known, nil
	}
	return fleet.Fleet{}, fmt.Errorf("%w: %s", fleet.ErrNoFleet, ref)
}

func (f fleets) Fleets(string) []fleet.Fleet {
	var all []fleet.Fleet
	for _, known := range f {
		if known.Heard {
			all = append(all, known)
		}
	}
	slices.SortFunc(all, func(a, b fleet.Fleet) int { return strings.Compare(a.String(), b.String()) })
	return all
}

func (f fleets) Names(_ string, kind fleet.Kind) []string {
	var names []string
	for ref := range f {
		if ref.Kind == kind {
			names = append(names, ref.Name)
		}
	}
	return names
}

func someFleets() fleets {
	f := fleets{}
	add := func(kind fleet.Kind, name string, heard bool, states ...fleet.State) {
		made := fleet.Fleet{Ref: fleet.Ref{Namespace: "airflow", Kind: kind, Name: name}, Heard: heard}
		for i, state := range states {
			made.Members = append(made.Members, fleet.Member{
				Pod: fmt.Sprintf("%s-%d", name, i), Ordinal: i, State: state, Ready: true, Reason: "never heard",
				Active: queue.Known(2, t0), Slots: queue.Unknown(errors.New("remote control is off")),
			})
		}
		f[made.Ref] = made
	}
	add(fleet.Deployment, "worker", true, fleet.Busy, fleet.Idle, fleet.Busy)
	add(fleet.StatefulSet, "worker", true, fleet.Idle, fleet.Busy)
	add(fleet.Deployment, "redis", false, fleet.Unknown)
	add(fleet.Deployment, "asleep", false)
	return f
}

func TestFleetMetrics(t *testing.T) {
	tests := []struct{ rule, namespace, metric, selector, want string }{
		{"a Deployment is asked for by name", "airflow", "celery_busy_workers", "deployment=worker", "map[deployment:worker]=2"},
		{"a StatefulSet of the same name is another", "airflow", "celery_busy_workers", "statefulset=worker", "map[statefulset:worker]=2"},
		{"without a name all that were heard answer", "airflow", "celery_busy_workers", "", "map[deployment:worker]=2 map[statefulset:worker]=2"},
		{"a label may be excluded", "airflow", "celery_worker_active_tasks", "!statefulset", "map[deployment:worker]=6"},
		{"a fleet at zero that is named is zero", "airflow", "celery_busy_workers", "deployment=asleep", "map[deployment:asleep]=0"},
		{"a misspelt name is not found", "airflow", "celery_busy_workers", "deployment=worked", "404 namespace airflow has no Deployment \"worked\" (closest of the known: worker"},
		{"what was never heard is unknown", "airflow", "celery_busy_workers", "deployment=redis", "503 no worker of Deployment airflow/redis was heard yet: never heard"},
		{"an unknown number says whose it is", "airflow", "celery_worker_slots", "deployment=worker", "503 Deployment airflow/worker: pod worker-0: remote control is off"},
		{"a label of queues is refused", "airflow", "celery_busy_workers", "queue=default", "404 worker metrics have no label \"queue\""},
		{"two labels match no fleet", "airflow", "celery_busy_workers", "deployment=worker,statefulset=worker", "404 no fleet of workers in namespace airflow matches"},
		{"a namespace without broker says so", "nowhere", "celery_busy_workers", "deployment=worker", "404 namespace nowhere has no CeleryBroker"},
		{"pods that cannot be watched are unknown", "media", "celery_busy_workers", "deployment=worker", "503 the pods of the namespace are not known: watch pods: forbidden"},
	}
	p := externalmetrics.New(world(), someFleets(), func() time.Time { return t0 })
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := askFleets(t, p, tt.namespace, tt.metric, tt.selector); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s %s: %s\nwant %s", tt.metric, tt.selector, got, tt.want)
			}
		})
	}
}

func TestFleetMetricsNeedACluster(t *testing.T) {
	p := externalmetrics.New(world(), nil, func() time.Time { return t0 })
	if got := askFleets(t, p, "airflow", "celery_busy_workers", "deployment=worker"); !strings.HasPrefix(got, "404 metric celery_busy_workers") {
		t.Errorf("without a cluster: %s", got)
	}
}

// askFleets returns the answer as text: items, or status code and message.
func askFleets(t *testing.T, p *externalmetrics.Provider, namespace, metric, selector string) string {
	t.Helper()
	parsed, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.GetExternalMetric(context.Background(), namespace, parsed, provider.ExternalMetricInfo{Metric: metric})
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Fatalf("the error is no API status: %v", err)
		}
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Message)
	}
	var items []string
	for _, i := range list.Items {
		items = append(items, fmt.Sprintf("%v=%s", i.MetricLabels, i.Value.String()))
	}
	return strings.Join(items, " ")
}
