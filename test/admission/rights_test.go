package admission_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

func (f *fixture) testRights(t *testing.T) {
	namespace := f.namespace(t)
	eventually.Succeeds(t, patience, "the roles are collected", func() error {
		if f.may(t, "patch", "things.example.org", "--subresource=scale", "--namespace="+namespace) {
			return nil
		}
		return errors.New("they are not")
	})
	for _, tt := range []struct {
		rule string
		want bool
		args []string
	}{
		{"write the scale of Deployments", true, []string{"patch", "deployments.apps", "--subresource=scale", "--namespace=" + namespace}},
		{"write the scale of StatefulSets", true, []string{"patch", "statefulsets.apps", "--subresource=scale", "--namespace=" + namespace}},
		{"write that of others where it was given", true, []string{"patch", "things.example.org", "--subresource=scale", "--namespace=" + namespace}},
		{"read it, too", true, []string{"get", "things.example.org", "--subresource=scale", "--namespace=" + namespace}},
		{"and of no others", false, []string{"patch", "deployments.example.org", "--subresource=scale", "--namespace=" + namespace}},
		{"not write a Deployment", false, []string{"patch", "deployments.apps", "--namespace=" + namespace}},
		{"not write an HPA", false, []string{"patch", "horizontalpodautoscalers.autoscaling", "--namespace=" + namespace}},
		{"read a Secret that a CeleryBroker names", true, []string{"get", "secrets", "--namespace=" + namespace}},
		{"not look for Secrets", false, []string{"list", "secrets", "--namespace=" + namespace}},
		{"nor make one elsewhere", false, []string{"create", "secrets", "--namespace=" + namespace}},
		{"keep its certificate at home", true, []string{"update", "secrets/celery-hpa-serving-cert", "--namespace=celery-hpa"}},
		{"and no other Secret there", false, []string{"update", "secrets/other", "--namespace=celery-hpa"}},
		{"have its certificate trusted", true, []string{"update", "apiservices.apiregistration.k8s.io/v1beta1.external.metrics.k8s.io"}},
		{"and no other's", false, []string{"update", "apiservices.apiregistration.k8s.io/v1.apps"}},
		{"tell of events", true, []string{"create", "events", "--namespace=" + namespace}},
		{"count them", true, []string{"patch", "events", "--namespace=" + namespace}},
		{"make a Lease at home", true, []string{"create", "leases.coordination.k8s.io", "--namespace=celery-hpa"}},
		{"renew its own", true, []string{"update", "leases.coordination.k8s.io/celery-hpa", "--namespace=celery-hpa"}},
		{"not take another's", false, []string{"update", "leases.coordination.k8s.io/other", "--namespace=celery-hpa"}},
		{"nor make one elsewhere", false, []string{"create", "leases.coordination.k8s.io", "--namespace=" + namespace}},
		{"keep its webhooks", true, []string{"update", "validatingwebhookconfigurations.admissionregistration.k8s.io/celery-hpa"}},
		{"and no others", false, []string{"update", "validatingwebhookconfigurations.admissionregistration.k8s.io/other"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if got := f.may(t, tt.args...); got != tt.want {
				t.Errorf("kubectl auth can-i %q: %t, want %t", tt.args, got, tt.want)
			}
		})
	}
}

// may asks the API server whether celery-hpa may do something.
func (f *fixture) may(t *testing.T, args ...string) bool {
	t.Helper()
	args = append([]string{"auth", "can-i", "--as=" + ourUser}, args...)
	out, err := f.cluster.Kubectl(t.Context(), args...) // which fails where the answer is no
	answer := strings.TrimSpace(string(out))
	if answer != "yes" && answer != "no" {
		t.Fatalf("%q, %v", answer, err)
	}
	return answer == "yes"
}
