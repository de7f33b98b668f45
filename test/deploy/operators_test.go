package deploy_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// operatorKinds are those of others that the chart makes objects of, for cert-manager and for
// Prometheus' operator.
var operatorKinds = []string{"Certificate", "Issuer", "ServiceMonitor", "PrometheusRule"}

// The definitions are those of the operators' own types, so that the API server judges what
// the chart makes as it does in a cluster that has the operators.
func TestOperatorsTakeWhatTheChartMakes(t *testing.T) {
	c, h := start(t), newHelm(t, helm4Tool)
	cmd := exec.CommandContext(t.Context(), "make", "--silent", "operator-kinds")
	cmd.Dir = repository
	definitions, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.KubectlInput(t.Context(), strings.NewReader(definitions), "create", "--filename=-"); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "wait", "--for=condition=Established", "customresourcedefinitions", "--all")
	c.kubectl(t, "create", "namespace", namespace)
	made := map[string]bool{}
	for name, values := range renderings() {
		t.Run(name, func(t *testing.T) {
			for _, document := range documentsOf(h.run(t, append([]string{"template", release, chart}, values...)...)) {
				kind := kindOf(document)
				if !slices.Contains(operatorKinds, kind) {
					continue
				}
				made[kind] = true
				if err := c.wouldTake(t.Context(), document); err != nil {
					t.Error(err)
				}
				err := c.wouldTake(t.Context(), strings.Replace(document, "\nspec:\n", "\nspec:\n  misspelt: true\n", 1))
				if err == nil || !strings.Contains(err.Error(), "misspelt") {
					t.Errorf("of a %s with an unknown field the API server says %v", kind, err)
				}
			}
		})
	}
	if len(made) != len(operatorKinds) {
		t.Errorf("the chart has made %v, want all of %v", made, operatorKinds)
	}
}

// wouldTake asks the API server for everything but to keep the object.
func (c cluster) wouldTake(ctx context.Context, document string) error {
	_, err := c.KubectlInput(ctx, strings.NewReader(document), "create", "--dry-run=server", "--validate=strict", "--filename=-")
	return err
}

func kindOf(document string) string {
	for line := range strings.Lines(document) {
		if kind, found := strings.CutPrefix(line, "kind: "); found {
			return strings.TrimSpace(kind)
		}
	}
	return ""
}
