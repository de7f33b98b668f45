package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
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
	known := seriesNames(exported(t))
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
	// Of histograms, and of Prometheus itself.
	labels := map[string]bool{"le": true, "instance": true, "job": true}
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
	for _, found := range regexp.MustCompile(`(?:by|on) \(([^)]*)\)`).FindAllStringSubmatch(expression, -1) {
		labels = append(labels, strings.Split(found[1], ", ")...)
	}
	for _, pattern := range []string{`(\w+)(?:=~|!~|!=|=)"`, `(?m)^label_values\(.*, (\w+)\)$`, `{{(\w+)}}`} {
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(expression+"\n"+legend, -1) {
			labels = append(labels, found[1])
		}
	}
	return labels
}
