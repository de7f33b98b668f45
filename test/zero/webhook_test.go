package zero_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// refuse registers a webhook of that name that lets no scale of a namespace's
// Deployments pass, with a message, or one that does not answer, without.
func (b *bench) refuse(t *testing.T, webhook string, refusal *metav1.Status) {
	t.Helper()
	cert, key, err := b.cluster.ServingCert()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || refusal == nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: refusal}
		_ = json.NewEncoder(w).Encode(review)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	b.apply(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: %[2]s
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  clientConfig: {url: "%[3]s", caBundle: %[4]s}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}
  rules: [{apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments/scale]}]
`, b.namespace, webhook, server.URL, base64.StdEncoding.EncodeToString(b.cluster.CABundle())))
	t.Cleanup(func() {
		if _, err := b.cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "validatingwebhookconfiguration", b.namespace); err != nil {
			t.Error(err)
		}
	})
}

func (f *fixture) tellsRefusals(t *testing.T) {
	for _, tt := range []struct {
		rule, webhook string
		refusal       *metav1.Status
		isRefusal     bool
		want          string
	}{
		{
			"our own is its message alone", "zero.celery-hpa.io", &metav1.Status{Code: http.StatusForbidden, Message: "queue redis/celery: 3 messages wait;\nelse nothing"},
			true, "queue redis/celery: 3 messages wait;\nelse nothing",
		},
		{
			"whatever the code", "zero.celery-hpa.io", &metav1.Status{Code: http.StatusTeapot, Message: "no"},
			true, "no",
		},
		{
			"without a message it is said whose", "zero.celery-hpa.io", &metav1.Status{Code: http.StatusForbidden},
			true, `admission webhook "zero.celery-hpa.io" denied the request without explanation`,
		},
		{
			"another one says whose it is", "budget.example.com", &metav1.Status{Code: http.StatusForbidden, Message: "too dear"},
			true, `admission webhook "budget.example.com" denied the request: too dear`,
		},
		{
			"one that does not answer refuses nothing", "zero.celery-hpa.io", nil,
			false, `failed calling webhook "zero.celery-hpa.io"`,
		},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			b := f.bench(t)
			b.refuse(t, tt.webhook, tt.refusal)
			var refused error
			eventually.Succeeds(t, patience, "the webhook is asked", func() error {
				seen, err := b.scales.Get(t.Context(), b.deployment())
				if err != nil {
					t.Fatal(err)
				}
				refused = b.scales.Set(t.Context(), b.deployment(), seen, seen.Replicas+1)
				if refused == nil || errors.Is(refused, zeroscaler.ErrConflict) {
					return errors.New("not yet")
				}
				return nil
			})
			refusal, isRefusal := errors.AsType[*zeroscaler.RefusedError](refused)
			if isRefusal != tt.isRefusal {
				t.Fatalf("Set() = %v, a refusal is %t, want %t", refused, isRefusal, tt.isRefusal)
			}
			if isRefusal && refusal.Message != tt.want {
				t.Errorf("refused with %q, want %q", refusal.Message, tt.want)
			}
			if !strings.Contains(refused.Error(), tt.want) {
				t.Errorf("Set() = %v, want an error that says %q", refused, tt.want)
			}
		})
	}
}
