package prometheus_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkProvoked fails unless all alerts of the rules were seen, and no others.
func checkProvoked(t *testing.T, provoked map[string]bool) {
	want := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^  - alert: (\w+)$`).FindAllStringSubmatch(string(readFile(t, rulesFile)), -1) {
		want[found[1]] = true
	}
	if diff := cmp.Diff(want, provoked); diff != "" || len(want) == 0 {
		t.Errorf("alerts (-rules +provoked):\n%s", diff)
	}
}

// checkPanels fails if an expression of the dashboard never had a value.
func (s *scenario) checkPanels(t *testing.T) {
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(readFile(t, dashboard), &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$namespace", ".*", "$broker", ".*", "$queue", ".*", "$__rate_interval", "5s")
	shown := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			shown++
			if s.monitor.values(t, variables.Replace(target.Expr)) == 0 {
				t.Errorf("%s has never shown anything: %s", panel.Title, target.Expr)
			}
		}
	}
	t.Logf("%d expressions of panels", shown)
}

// documented is what a row of the page says of a metric.
type documented struct{ Kind, Help string }

// page are the rows of the page of metrics.
func page(t *testing.T) map[string]documented {
	t.Helper()
	rows := map[string]documented{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| [^|]* \\| [^|]* \\| (.*) \\|$").FindAllStringSubmatch(string(readFile(t, metricsPage)), -1) {
		rows[row[1]] = documented{row[2], row[3]}
	}
	return rows
}

// There is one metric with RabbitMQ alone, and one with --serving-secret alone.
const (
	withRabbitMQ      = "celery_hpa_broker_delayed_messages"
	withServingSecret = "celery_hpa_serving_certificate_expiry_timestamp_seconds"
)

// checkMetricsPage compares the page with what Prometheus was told.
func (s *scenario) checkMetricsPage(t *testing.T) {
	rows := page(t)
	want := map[string]bool{}
	for name, row := range rows {
		suffixes := []string{""}
		if row.Kind == "histogram" {
			suffixes = []string{"_bucket", "_count", "_sum"}
		}
		for _, suffix := range suffixes {
			want[name+suffix] = true
		}
	}
	delete(want, withRabbitMQ)
	delete(want, withServingSecret)
	var names []string
	s.monitor.get(t, "label/__name__/values", nil, &names)
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "celery_") })
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), names); diff != "" {
		t.Errorf("series (-page +scraped):\n%s", diff)
	}
	var told map[string][]struct{ Type, Help string }
	s.monitor.get(t, "metadata", nil, &told)
	seen := 0
	for name, metas := range told {
		if !strings.HasPrefix(name, "celery_") {
			continue
		}
		seen++
		if got := (documented{metas[0].Type, metas[0].Help}); got != rows[name] {
			t.Errorf("%s is %v, the page says %v", name, got, rows[name])
		}
	}
	if seen == 0 {
		t.Error("Prometheus knows of no metric what it is")
	}
}
