package prometheus_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	rulesFile   = "../../deploy/prometheus/rules.yaml"
	rightsFile  = "../../deploy/examples/prometheus.yaml"
	metricsPage = "../../docs/metrics.md"
	dashboard   = "../../deploy/grafana/celery-hpa.json"
)

// monitor is a Prometheus that scrapes a celery-hpa every second.
type monitor struct {
	*servers.Prometheus
	started time.Time
}

// startMonitor gives a Prometheus the rights of the example, and the rules in haste.
func startMonitor(t *testing.T, p *playground.Playground) *monitor {
	t.Helper()
	folder := t.TempDir()
	kubectl(t, p, "create", "namespace", "monitoring")
	kubectl(t, p, "-n", "monitoring", "create", "serviceaccount", "prometheus")
	kubectl(t, p, "apply", "-f", rightsFile)
	token := kubectl(t, p, "-n", "monitoring", "create", "token", "prometheus")
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
- job_name: celery-hpa
  scheme: https
  honor_labels: true
  authorization: {credentials_file: %q}
  tls_config: {ca_file: %q}
  static_configs: [{targets: [%q]}]
`, write("rules.yaml", hasty(t)), write("token", strings.TrimSpace(token)), write("ca.crt", string(p.Cluster.CABundle())),
		strings.TrimPrefix(p.Address(), "https://"))
	return &monitor{servers.StartPrometheus(t, write("prometheus.yml", config)), time.Now()}
}

// hasty are the rules with other times, so that the test is no matter of hours: each
// condition must hold for 2 s, increases are those of 10 s, and a task of 3 s is old. All
// else is as in the file.
func hasty(t *testing.T) string {
	t.Helper()
	text := string(readFile(t, rulesFile))
	for _, change := range []struct{ pattern, with string }{
		{`(?m)^(    for:) \w+$`, "$1 2s"},
		{`\[\w+\]`, "[10s]"},
		{`(_age_seconds\)) > 900\b`, "$1 > 3"},
	} {
		pattern := regexp.MustCompile(change.pattern)
		if !pattern.MatchString(text) {
			t.Fatalf("%s has no %s", rulesFile, change.pattern)
		}
		text = pattern.ReplaceAllString(text, change.with)
	}
	return text
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// get asks Prometheus' HTTP API.
func (m *monitor) get(t *testing.T, path string, query url.Values, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL()+"/api/v1/"+path+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %v: %v %s", path, query, err, answer.Error)
	}
}

// firing is an alert as Prometheus tells it.
type firing struct {
	Labels, Annotations map[string]string
	State               string
}

// alerts are those of a name, or all of them, that fire or are about to.
func (m *monitor) alerts(t *testing.T, name string) []firing {
	t.Helper()
	var answer struct{ Alerts []firing }
	m.get(t, "alerts", nil, &answer)
	var found []firing
	for _, a := range answer.Alerts {
		if name == "" || a.Labels["alertname"] == name {
			found = append(found, a)
		}
	}
	return found
}

// values counts the numbers that an expression had since the monitor has started.
func (m *monitor) values(t *testing.T, expression string) int {
	t.Helper()
	second := func(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
	var answer struct{ Result []struct{ Values [][2]any } }
	m.get(t, "query_range", url.Values{
		"query": {expression}, "start": {second(m.started)}, "end": {second(time.Now())}, "step": {"1"},
	}, &answer)
	n := 0
	for _, series := range answer.Result {
		for _, sample := range series.Values {
			if value, err := strconv.ParseFloat(sample[1].(string), 64); err == nil && !math.IsNaN(value) {
				n++
			}
		}
	}
	return n
}
