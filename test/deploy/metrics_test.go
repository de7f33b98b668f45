package deploy_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the tables of docs/metrics.md anew")

const metricsPage = "../../docs/metrics.md"

// TestMetricsPageListsEveryMetric compares the tables of the page with the code.
func TestMetricsPageListsEveryMetric(t *testing.T) {
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	own, others := tables(exported(t))
	want := replaceTable(t, string(text), "queues and workers", others)
	want = replaceTable(t, want, "celery-hpa", own)
	if *update {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("docs/metrics.md does not say what the code does; run \"go test ./test/deploy -run MetricsPage -args -update\" (-code +page):\n%s", diff)
	}
}

// replaceTable puts a table between the two comments that bear its name.
func replaceTable(t *testing.T, text, name, table string) string {
	t.Helper()
	begin, end := "<!-- table: "+name+" -->\n", "<!-- end of table -->\n"
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("docs/metrics.md has no %q with an %q behind it", begin, end)
	}
	return before + begin + table + end + after
}

// tables are the rows of the metrics of celery-hpa itself, and of all others.
func tables(families []family) (own, others string) {
	const head = "| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n"
	own, others = head, head
	for _, f := range families {
		row := fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", f.name, f.kind, strings.Join(f.labels, ", "), unit(f.name), f.help)
		if strings.HasPrefix(f.name, "celery_hpa_") {
			own += row
		} else {
			others += row
		}
	}
	return own, others
}

// unit is what a metric's name says of it; nothing for a number of things.
func unit(name string) string {
	switch {
	case strings.HasSuffix(name, "_timestamp_seconds"):
		return "s since 1970"
	case strings.HasSuffix(name, "_seconds"):
		return "s"
	}
	return ""
}

// TestPagesSpeakOfMetricsThatExist finds what was renamed.
func TestPagesSpeakOfMetricsThatExist(t *testing.T) {
	known := seriesNames(exported(t))
	for _, page := range []string{"../../README.md", "../../docs/zero.md", "../../docs/workers.md", "../../docs/alerts.md", metricsPage} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile("`(celery_(?:hpa|queue|worker|busy)_[a-z_]+)[`{]").FindAllStringSubmatch(string(text), -1) {
			if name := found[1]; known[name] == nil && known[name+"_bucket"] == nil {
				t.Errorf("%s speaks of %s, which there is not", page, name)
			}
		}
	}
}
