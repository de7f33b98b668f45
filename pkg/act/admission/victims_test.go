package admission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// world is what the webhook knows: one Deployment of workers, which is a target.
type world struct {
	fleet   fleet.Fleet
	lost    error // of Fleet
	refused error // of Mark
	budget  time.Duration
	marked  int
}

func (w *world) Fleet(ref fleet.Ref) (fleet.Fleet, error) {
	if ref != w.fleet.Ref {
		return fleet.Fleet{}, fleet.ErrNoFleet
	}
	return w.fleet, w.lost
}

func (w *world) Targets(namespace string) []target.Target {
	if namespace != "airflow" {
		return nil
	}
	return []target.Target{
		{Namespace: "airflow", APIVersion: "apps/v1", Kind: "Deployment", Name: "worker"},
		{Namespace: "airflow", APIVersion: "apps/v1", Kind: "StatefulSet", Name: "stateful"},
	}
}

func (w *world) Mark(ctx context.Context, f fleet.Fleet) error {
	if f.Ref != w.fleet.Ref {
		return fmt.Errorf("asked to mark %s", f.Ref)
	}
	w.marked++
	deadline, _ := ctx.Deadline()
	w.budget = time.Until(deadline)
	return w.refused
}

// busy makes a world with so many busy workers and an idle one.
func busy(n int) *world {
	f := fleet.Fleet{Ref: fleet.Ref{Namespace: "airflow", Kind: fleet.Deployment, Name: "worker"}, Heard: true}
	f.Members = append(f.Members, fleet.Member{State: fleet.Idle}, fleet.Member{State: fleet.Busy, Terminating: true})
	for range n {
		f.Members = append(f.Members, fleet.Member{State: fleet.Busy})
	}
	return &world{fleet: f}
}

// serve answers one request and returns what the metrics count.
func (w *world) serve(t testing.TB, method, body string) (*httptest.ResponseRecorder, map[string]float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	victims, err := admission.NewVictims(w, w, w, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	response := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), method, admission.VictimsPath, strings.NewReader(body))
	victims.ServeHTTP(response, request)
	return response, counts(t, registry)
}

// counts are the results that occurred.
func counts(t testing.TB, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				counted[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return counted
}

// ask is an AdmissionReview of a scale of the Deployment airflow/worker from 12 to 4,
// with some of its fields replaced.
func ask(replace ...string) string {
	return strings.NewReplacer(replace...).Replace(`{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": {
			"uid": "u-1", "operation": "UPDATE", "namespace": "airflow", "name": "worker",
			"kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
			"resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "subResource": "scale",
			"userInfo": {"username": "jane"}, "dryRun": false,
			"oldObject": {"spec": {"replicas": 12}},
			"object": {"spec": {"replicas": 4}}
		}
	}`)
}

func TestVictims(t *testing.T) {
	const hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
	const warning = "celery-hpa: 6 pods of Deployment airflow/worker may be executing tasks, and 4 stay: at least 2 of them will be told to end. " +
		"They finish their tasks unless these take longer than terminationGracePeriodSeconds."
	unheard := busy(6)
	unheard.fleet.Heard = false
	lost := busy(6)
	lost.lost = errors.New("not synced")
	refused := busy(6)
	refused.refused = errors.New("no right")
	for _, tt := range []struct {
		rule    string
		world   *world
		request string
		marked  int
		result  string
		warning string
	}{
		{"a scale-down marks", busy(4), ask(), 1, "marked", ""},
		{"so does a lowered Deployment", busy(4), ask(`"subResource": "scale",`, ""), 1, "marked", ""},
		{"a person is warned of busy workers that end", busy(6), ask(), 1, "marked", warning},
		{"the HPA is not", busy(6), ask("jane", hpa), 1, "marked", ""},
		{"a dry run warns and marks not", busy(6), ask(`"dryRun": false`, `"dryRun": true`), 0, "dry_run", warning},
		{"what could not be marked is allowed", refused, ask(), 1, "failed", warning},
		{"a fleet that is not known is allowed", lost, ask(), 0, "unknown", ""},
		{"workers that were never heard are not known", unheard, ask(), 0, "unknown", ""},
		{"a scale-up is ignored", busy(6), ask(`"replicas": 4`, `"replicas": 13`), 0, "ignored", ""},
		{"the same number is ignored", busy(6), ask(`"replicas": 4`, `"replicas": 12`), 0, "ignored", ""},
		{"zero is ignored", busy(6), ask(`"replicas": 4`, `"replicas": 0`), 0, "ignored", ""},
		{"so is a zero that is left out", busy(6), ask(`"replicas": 4`, ``), 0, "ignored", ""},
		{"a wake-up from zero is ignored", busy(6), ask(`"replicas": 12`, ``), 0, "ignored", ""},
		{"another Deployment is ignored", busy(6), ask(`"name": "worker"`, `"name": "web"`), 0, "ignored", ""},
		{"another namespace is ignored", busy(6), ask(`"namespace": "airflow"`, `"namespace": "default"`), 0, "ignored", ""},
		{"a StatefulSet cannot choose", busy(6), ask(`"deployments"`, `"statefulsets"`, `"name": "worker"`, `"name": "stateful"`), 0, "ignored", ""},
		{"a Deployment of another group is ignored", busy(6), ask(`"apps"`, `"example.org"`), 0, "ignored", ""},
		{"another subresource is ignored", busy(6), ask(`"scale"`, `"status"`), 0, "ignored", ""},
		{"another operation is ignored", busy(6), ask("UPDATE", "CREATE"), 0, "ignored", ""},
		{"an object that makes no sense is ignored", busy(6), ask(`"replicas": 4`, `"replicas": "many"`), 0, "ignored", ""},
		{"a missing object is ignored", busy(6), ask(`"oldObject"`, `"former"`), 0, "ignored", ""},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			response, counted := tt.world.serve(t, http.MethodPost, tt.request)
			checkAllowed(t, response, tt.warning)
			if tt.world.marked != tt.marked {
				t.Errorf("marked %d times, want %d", tt.world.marked, tt.marked)
			}
			if diff := cmp.Diff(map[string]float64{tt.result: 1}, counted); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
		})
	}
}

func checkAllowed(t *testing.T, response *httptest.ResponseRecorder, warning string) {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(response.Body.Bytes(), &review); err != nil || response.Code != http.StatusOK {
		t.Fatalf("answer %d %q, %v", response.Code, response.Body, err)
	}
	want := admissionv1.AdmissionReview{Response: &admissionv1.AdmissionResponse{UID: "u-1", Allowed: true}}
	want.APIVersion, want.Kind = "admission.k8s.io/v1", "AdmissionReview"
	if warning != "" {
		want.Response.Warnings = []string{warning}
	}
	if diff := cmp.Diff(want, review); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestVictimsMarksWithinTheTimeThatTheAPIServerWaits(t *testing.T) {
	w := busy(1)
	w.serve(t, http.MethodPost, ask())
	if w.budget <= 0 || w.budget >= 2*time.Second {
		t.Errorf("%s to mark, want less than the webhook's 2 s", w.budget)
	}
}

func TestWhatIsNoReviewIsRefused(t *testing.T) {
	for _, tt := range []struct {
		rule, method, body string
		want               int
	}{
		{"a GET", http.MethodGet, ask(), http.StatusMethodNotAllowed},
		{"nothing", http.MethodPost, "", http.StatusBadRequest},
		{"no JSON", http.MethodPost, "replicas: 4", http.StatusBadRequest},
		{"another kind", http.MethodPost, ask("AdmissionReview", "ConversionReview"), http.StatusBadRequest},
		{"another version", http.MethodPost, ask("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), http.StatusBadRequest},
		{"a review that asks nothing", http.MethodPost, ask(`"request"`, `"question"`), http.StatusBadRequest},
		{"a review as long as allowed", http.MethodPost, ask() + strings.Repeat(" ", 3<<20-len(ask())), http.StatusOK},
		{"a longer one", http.MethodPost, ask() + strings.Repeat(" ", 3<<20-len(ask())+1), http.StatusRequestEntityTooLarge},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			response, _ := busy(1).serve(t, tt.method, tt.body)
			if response.Code != tt.want {
				t.Errorf("answer %d %q, want %d", response.Code, response.Body, tt.want)
			}
		})
	}
}

func FuzzVictims(f *testing.F) {
	for _, body := range []string{
		ask(), ask("4", "-4"), ask("12", "99999999999999999999"), ask(`{"spec": {"replicas": 12}}`, "null"), "{}", "[]", "null", `{"request": {}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		response, _ := busy(6).serve(t, http.MethodPost, body)
		if response.Code == http.StatusOK && !bytes.Contains(response.Body.Bytes(), []byte(`"allowed":true`)) {
			t.Errorf("answer %q, want it to allow", response.Body)
		}
	})
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := busy(0)
	for i, wantErr := range []bool{false, true} {
		if _, err := admission.NewVictims(w, w, w, slog.New(slog.DiscardHandler), registry); (err != nil) != wantErr {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
}
