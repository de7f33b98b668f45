package leader_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
)

func TestElectionsThatCannotWork(t *testing.T) {
	const second = time.Second
	for _, tt := range []struct {
		rule, namespace, identity string
		times                     leader.Times
		want                      string // empty: it works
	}{
		{"the default works", "celery-hpa", "a", leader.DefaultTimes(), ""},
		{"without a namespace", "", "a", leader.DefaultTimes(), "the namespace of celery-hpa and the name of its pod must be known"},
		{"without an identity", "celery-hpa", "", leader.DefaultTimes(), "the namespace of celery-hpa and the name of its pod must be known"},
		{"a lease of less than seconds", "celery-hpa", "a", leader.Times{Lease: 5 * second / 2, Renew: second, Retry: second / 5}, "whole seconds, not for 2.5s"},
		{"a lease that ends while somebody leads", "celery-hpa", "a", leader.Times{Lease: 5 * second, Renew: 5 * second, Retry: second}, "leaseDuration must be greater"},
		{"no time to try again", "celery-hpa", "a", leader.Times{Lease: 5 * second, Renew: second, Retry: second}, "renewDeadline must be greater"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			clients, err := kubernetes.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
			if err != nil {
				t.Fatal(err)
			}
			e, err := leader.NewWithTimes(clients.CoordinationV1(), tt.namespace, tt.identity, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), tt.times)
			if tt.want == "" {
				if err != nil || e.Leads() {
					t.Errorf("got %v, want an elector that does not lead yet", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}
