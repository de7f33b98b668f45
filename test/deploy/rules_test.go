package deploy_test

import (
	"errors"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// rules is what of Prometheus' rules speaks of metrics.
type rules struct {
	Groups []struct {
		Rules []struct{ Alert, Expr string }
	}
}

func TestRulesAlertOnMetricsThatExist(t *testing.T) {
	var all rules
	decode(t, string(read(t, chart, "files/rules.yaml")), &all)
	known := exported(t)
	maps.Copy(known, exportedOfZero(t))
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) { checkExpression(t, known, rule.Expr, "") })
		}
	}
}

// exportedOfZero is every series name of leading and of going to zero, with its labels.
func exportedOfZero(t *testing.T) map[string][]string {
	t.Helper()
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"}) // nothing is asked
	if err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	elector, err := leader.New(clients.CoordinationV1(), namespace, "pod", log, registry)
	if err != nil {
		t.Fatal(err)
	}
	known, err := journal.New(clients.CoreV1(), elector, log, registry)
	if err != nil {
		t.Fatal(err)
	}
	known.Mistaken(target.Target{Namespace: "default", HPA: "worker", Zero: target.Zero{Mistake: errors.New("one")}}, time.Now())
	return gather(t, registry)
}
