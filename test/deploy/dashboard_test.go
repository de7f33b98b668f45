package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// dashboard is what of a Grafana dashboard speaks of metrics.
type dashboard struct {
	Panels     []panel
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
}

type panel struct {
	Title   string
	Targets []struct{ Expr, LegendFormat string }
}

func TestDashboardShowsMetricsThatExist(t *testing.T) {
	known := exported(t)
	board := load(t)
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			t.Run(panel.Title, func(t *testing.T) { checkExpression(t, known, target.Expr, target.LegendFormat) })
		}
	}
	for _, variable := range board.Templating.List {
		if query, ok := variable.Query.(map[string]any); ok {
			t.Run("variable "+variable.Name, func(t *testing.T) { checkExpression(t, known, query["query"].(string), "") })
		}
	}
}

func load(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/celery-hpa.json")
	if err != nil {
		t.Fatal(err)
	}
	var board dashboard
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	return board
}

// checkExpression looks for every name of a metric and of a label.
func checkExpression(t *testing.T, known map[string][]string, expression, legend string) {
	t.Helper()
	labels := map[string]bool{"le": true}
	names := regexp.MustCompile(`\bcelery_\w+`).FindAllString(expression, -1)
	if len(names) == 0 {
		t.Errorf("%s: no metric of ours", expression)
	}
	for _, name := range names {
		if known[name] == nil {
			t.Errorf("%s: there is no metric %s", expression, name)
		}
		for _, label := range known[name] {
			labels[label] = true
		}
	}
	for _, label := range labelsOf(expression, legend) {
		if !labels[label] {
			t.Errorf("%s, legend %q: no metric in it has the label %s", expression, legend, label)
		}
	}
}

// labelsOf finds the labels that are selected by, grouped by, listed, or shown.
func labelsOf(expression, legend string) []string {
	var labels []string
	for _, found := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(expression, -1) {
		labels = append(labels, strings.Split(found[1], ", ")...)
	}
	for _, pattern := range []string{`(\w+)(?:=~|!~|!=|=)"`, `(?m)^label_values\(.*, (\w+)\)$`, `{{(\w+)}}`} {
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(expression+"\n"+legend, -1) {
			labels = append(labels, found[1])
		}
	}
	return labels
}

// exported is every series name that celery-hpa serves, with its labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	ref, now := queue.BrokerRef{Namespace: "default", Name: "redis"}, time.Now()
	store := snapshot.New()
	store.Declare(snapshot.Declaration{Ref: ref, MaxAge: time.Hour})
	one := queue.Known(1, now)
	store.Put(ref, &queue.Sample{At: now, Queues: map[string]queue.Depth{
		"celery": {Backlog: one, InFlight: one, Scheduled: one, Oldest: one, Wait: one, Work: one},
	}})
	exporter := promexport.New(store, time.Now)
	exporter.Sampled(ref, time.Millisecond, nil)
	registry := prometheus.NewRegistry()
	registry.MustRegister(exporter, promexport.NewFleets(workforce{}, workforce{}, time.Now))
	return gather(t, registry)
}

// workforce is one broker, and one fleet of one worker.
type workforce struct{}

func (workforce) Brokers() map[queue.BrokerRef]error {
	return map[queue.BrokerRef]error{{Namespace: "default", Name: "redis"}: nil}
}

func (workforce) Of(queue.BrokerRef) []workers.Worker { return nil }

func (workforce) HasHost(string, string) bool { return true }

func (workforce) Fleets(namespace string) []fleet.Fleet {
	one := queue.Known(1, time.Now())
	return []fleet.Fleet{{
		Ref: fleet.Ref{Namespace: namespace, Kind: fleet.Deployment, Name: "worker"}, Heard: true,
		Members: []fleet.Member{{Pod: "worker-1", State: fleet.Busy, Ready: true, Active: one, Slots: one}},
	}}
}

func gather(t *testing.T, registry *prometheus.Registry) map[string][]string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]string{}
	for _, family := range families {
		labels := []string{}
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, pair.GetName())
		}
		suffixes := []string{""}
		if family.GetType().String() == "HISTOGRAM" {
			suffixes = []string{"_bucket", "_sum", "_count"}
		}
		for _, suffix := range suffixes {
			known[family.GetName()+suffix] = labels
		}
	}
	return known
}
