package deploy_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	rules      = "../../deploy/prometheus/rules.yaml"
	rulesTests = "../../deploy/prometheus/rules_test.yaml"
	alertsPage = "../../docs/alerts.md"
)

// alert is an alerting rule of Prometheus.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(readFile(t, rules)), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatalf("%s has %d groups, want one with rules", rules, len(file.Groups))
	}
	return file.Groups[0].Rules
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAlertsAreOnMetricsThatExist(t *testing.T) {
	known := seriesNames(exported(t))
	for _, a := range alerts(t) {
		t.Run(a.Alert, func(t *testing.T) { checkExpression(t, known, a.Expr, "") })
	}
}

// TestAlertsSayWhatToDo looks at what a person gets, and at what he is sent to.
func TestAlertsSayWhatToDo(t *testing.T) {
	page, tests := readFile(t, alertsPage), readFile(t, rulesTests)
	for _, a := range alerts(t) {
		t.Run(a.Alert, func(t *testing.T) {
			if s := a.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("severity is %q, want critical or warning", s)
			}
			if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
				t.Error("it has no summary or no description")
			}
			if runbook := a.Annotations["runbook_url"]; !strings.HasSuffix(runbook, "/docs/alerts.md#"+strings.ToLower(a.Alert)) {
				t.Errorf("the runbook is %q, want the section of this alert", runbook)
			}
			if !strings.Contains(page, "\n## "+a.Alert+"\n") {
				t.Errorf("%s has no such section", alertsPage)
			}
			if !strings.Contains(tests, `alertname="`+a.Alert+`"`) {
				t.Errorf("%s never has it fire", rulesTests)
			}
		})
	}
}

// TestAlertsFireAndResolve runs deploy/prometheus/rules_test.yaml.
func TestAlertsFireAndResolve(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", rulesTests}} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
			if err != nil {
				t.Errorf("promtool %s: %v (\"make setup\" installs it)\n%s", strings.Join(args, " "), err, out)
			}
		})
	}
}
