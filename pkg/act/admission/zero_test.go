package admission_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const hpaUser = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"

// night is what the webhooks zero and notice know: targets, what a look finds, and
// what was told of refusals.
type night struct {
	targets  []target.Target
	unsynced bool
	look     func(ctx context.Context, t target.Target) idle.Observation
	looks    atomic.Int32
	told     []string
}

func (n *night) OptedIn() []target.Target { return n.targets }

func (n *night) Synced() bool { return !n.unsynced }

func (n *night) Look(ctx context.Context, t target.Target) idle.Observation {
	n.looks.Add(1)
	return n.look(ctx, t)
}

// Resource knows one kind beside those of Kubernetes.
func (n *night) Resource(t target.Target) (schema.GroupResource, error) {
	if t.Kind != "Rollout" {
		return schema.GroupResource{}, errors.New("no such kind")
	}
	return schema.GroupResource{Group: "argoproj.io", Resource: "rollouts"}, nil
}

func (n *night) Refused(t target.Target, cause idle.Cause, message string, at time.Time) {
	if at.IsZero() {
		message += ", at no time"
	}
	n.told = append(n.told, t.String()+": "+string(cause)+": "+message)
}

// optedIn is a target whose HPA asks for zero.
func optedIn(apiVersion, kind, name string) target.Target {
	return target.Target{
		Namespace: "airflow", HPA: name + "-hpa", APIVersion: apiVersion, Kind: kind, Name: name,
		Signals: []target.Signal{{Metric: "celery_queue_tasks"}},
		Zero:    target.Zero{Wanted: true},
	}
}

// waiting makes a night with one target, airflow/worker, and so many messages for it.
func waiting(n int64) *night {
	return &night{
		targets: []target.Target{optedIn("apps/v1", "Deployment", "worker")},
		look:    func(context.Context, target.Target) idle.Observation { return observation(n) },
	}
}

func observation(backlog int64) idle.Observation {
	known := func(n int64) queue.Count { return queue.Known(n, time.Now()) }
	return idle.Observation{Queues: []idle.Queue{{Name: "redis/celery", Depth: queue.Depth{
		Backlog: known(backlog), InFlight: known(0), Scheduled: known(0),
	}}}}
}

// askZero is an AdmissionReview of the HPA, of a scale of the Deployment
// airflow/worker from 1 to 0, with some of its fields replaced.
func askZero(replace ...string) string {
	return strings.NewReplacer(replace...).Replace(`{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": {
			"uid": "u-1", "operation": "UPDATE", "namespace": "airflow", "name": "worker",
			"kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
			"resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "subResource": "scale",
			"userInfo": {"username": "` + hpaUser + `"}, "dryRun": false,
			"oldObject": {"spec": {"replicas": 1}},
			"object": {"spec": {}}
		}
	}`)
}

// handlers makes both webhooks, and the registry of their metrics.
func (n *night) handlers(t testing.TB) (zero, notice http.Handler, registry *prometheus.Registry) {
	t.Helper()
	registry = prometheus.NewRegistry()
	looks, err := admission.NewLooks(n, n, n, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	return admission.NewZero(looks, n), admission.NewNotice(looks), registry
}

func post(ctx context.Context, handler http.Handler, body string) *httptest.ResponseRecorder {
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body)))
	return response
}

// answerOf is the answer to a review, which must be one.
func answerOf(t *testing.T, response *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(response.Body.Bytes(), &review); err != nil || response.Code != http.StatusOK || review.Response == nil {
		t.Fatalf("answer %d %q, %v", response.Code, response.Body, err)
	}
	return review.Response
}

func TestZero(t *testing.T) {
	const refusal = "celery-hpa: not to zero: "
	other := func(change func(*target.Target)) *night {
		n := waiting(3)
		change(&n.targets[0])
		return n
	}
	unknown := waiting(0)
	unknown.look = func(context.Context, target.Target) idle.Observation {
		return idle.Observation{QueuesErr: errors.New("redis does not answer")}
	}
	mixed := waiting(0)
	mixed.look = func(context.Context, target.Target) idle.Observation {
		o := observation(1)
		o.WorkersErr = errors.New("no answer")
		o.Workers = []idle.Worker{{Name: "worker-x", Reason: "executes 1 task"}, {Name: "worker-y", Reason: "is\nnew"}}
		return o
	}
	panics := waiting(0)
	panics.look = func(context.Context, target.Target) idle.Observation { panic("a mistake") }
	unsynced := &night{unsynced: true}
	shared := waiting(0)
	shared.targets = append(shared.targets, shared.targets[0])
	shared.look = func(_ context.Context, t target.Target) idle.Observation {
		return observation(int64(len(t.HPA) - len("worker-hpa")))
	}
	shared.targets[1].HPA = "another-hpa"
	stranger := waiting(3)
	stranger.targets = []target.Target{optedIn("example.org/v1", "Stranger", "worker")}

	for _, tt := range []struct {
		rule    string
		night   *night
		request string
		refused string // the message; empty: it is allowed
		result  string
		told    []string
	}{
		{"work refuses", waiting(3), askZero(), "queue redis/celery: 3 messages wait", "work", []string{"Deployment airflow/worker: work: queue redis/celery: 3 messages wait"}},
		{"nothing at all allows", waiting(0), askZero(), "", "idle", nil},
		{"what is not known refuses", unknown, askZero(), "its queues: redis does not answer", "unknown", []string{"Deployment airflow/worker: unknown: its queues: redis does not answer"}},
		{
			"the unknown is the cause, and few reasons are named, on one line", mixed, askZero(),
			"queue redis/celery: 1 message waits; its workers: no answer; pod worker-x: executes 1 task; and 1 more", "unknown",
			[]string{"Deployment airflow/worker: unknown: queue redis/celery: 1 message waits; its workers: no answer; pod worker-x: executes 1 task; and 1 more"},
		},
		{
			"a panic refuses", panics, askZero(), "the target could not be looked at: an error in celery-hpa, which its log shows", "unknown",
			[]string{"Deployment airflow/worker: unknown: the target could not be looked at: an error in celery-hpa, which its log shows"},
		},
		{
			"a paused target is refused", other(func(t *target.Target) { t.Zero.Paused = true }), askZero(),
			"HorizontalPodAutoscaler worker-hpa is paused (celery-hpa.io/paused)", "paused",
			[]string{"Deployment airflow/worker: paused: HorizontalPodAutoscaler worker-hpa is paused (celery-hpa.io/paused)"},
		},
		{"a dry run is refused alike, and nothing told", waiting(3), askZero(`"dryRun": false`, `"dryRun": true`), "queue redis/celery: 3 messages wait", "dry_run", nil},
		{"celery-hpa tells of its own refusals itself", waiting(3), askZero(hpaUser, "system:serviceaccount:celery-hpa:celery-hpa"), "queue redis/celery: 3 messages wait", "work", nil},
		{"each HPA of a target is looked at", shared, askZero(), "queue redis/celery: 1 message waits", "work", []string{"Deployment airflow/worker: work: queue redis/celery: 1 message waits"}},
		{"before all HPAs are known, an unknown target is refused", unsynced, askZero(), "celery-hpa does not know all HorizontalPodAutoscalers yet", "unknown", nil},
		{"the object itself is the same", waiting(3), askZero(`"subResource": "scale",`, ""), "queue redis/celery: 3 messages wait", "work", []string{"Deployment airflow/worker: work: queue redis/celery: 3 messages wait"}},
		{"a StatefulSet is the same", other(func(t *target.Target) { t.Kind = "StatefulSet" }), askZero("deployments", "statefulsets"), "queue redis/celery: 3 messages wait", "work", []string{"StatefulSet airflow/worker: work: queue redis/celery: 3 messages wait"}},
		{
			"any kind is the same", other(func(t *target.Target) { t.APIVersion, t.Kind = "argoproj.io/v1alpha1", "Rollout" }), askZero("deployments", "rollouts", "apps", "argoproj.io"),
			"queue redis/celery: 3 messages wait", "work",
			[]string{"Rollout airflow/worker: work: queue redis/celery: 3 messages wait"},
		},
		{"a kind that cannot be named may be the one", stranger, askZero("deployments", "strangers", "apps", "example.org"), "queue redis/celery: 3 messages wait", "work", []string{"Stranger airflow/worker: work: queue redis/celery: 3 messages wait"}},
		{"numbers that cannot be read are unknown", waiting(0), askZero(`"replicas": 1`, `"replicas": "one"`), "the numbers of replicas cannot be read", "unknown", []string{"Deployment airflow/worker: unknown: the numbers of replicas cannot be read"}},
		{"so are those that are missing", waiting(0), askZero("oldObject", "former"), "the numbers of replicas cannot be read", "unknown", []string{"Deployment airflow/worker: unknown: the numbers of replicas cannot be read"}},
		{"one that did not opt in is ignored", other(func(t *target.Target) { t.Zero.Wanted = false }), askZero(), "", "ignored", nil},
		{"one without a queue is ignored", other(func(t *target.Target) { t.Signals[0].Metric = "celery_busy_workers" }), askZero(), "", "ignored", nil},
		{"another name is ignored", waiting(3), askZero(`"worker"`, `"web"`), "", "ignored", nil},
		{"another namespace is ignored", waiting(3), askZero("airflow", "default"), "", "ignored", nil},
		{"another kind of the name is ignored", waiting(3), askZero("deployments", "statefulsets"), "", "ignored", nil},
		{"another group's kind is ignored", waiting(3), askZero("apps", "example.org"), "", "ignored", nil},
		{"a lowering above zero is ignored", waiting(3), askZero(`"replicas": 1`, `"replicas": 3`, `"spec": {}`, `"spec": {"replicas": 2}`), "", "ignored", nil},
		{"a wake is ignored", waiting(3), askZero(`"spec": {"replicas": 1}`, `"spec": {}`, `"spec": {}`, `"spec": {"replicas": 1}`), "", "ignored", nil},
		{"zero that stays is ignored", waiting(3), askZero(`"replicas": 1`, `"replicas": 0`), "", "ignored", nil},
		{"another subresource is ignored", waiting(3), askZero(`"subResource": "scale"`, `"subResource": "status"`), "", "ignored", nil},
		{"another operation is ignored", waiting(3), askZero("UPDATE", "CREATE"), "", "ignored", nil},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			zero, _, registry := tt.night.handlers(t)
			want := &admissionv1.AdmissionResponse{UID: "u-1", Allowed: true}
			if tt.refused != "" {
				want = &admissionv1.AdmissionResponse{UID: "u-1", Result: &metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: refusal + tt.refused,
				}}
			}
			if diff := cmp.Diff(want, answerOf(t, post(t.Context(), zero, tt.request))); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]float64{"zero " + tt.result: 1}, reviewsCounted(t, registry)); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.told, tt.night.told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if looks := tt.result == "ignored" || tt.result == "paused"; looks && tt.night.looks.Load() != 0 {
				t.Errorf("looked %d times, want never", tt.night.looks.Load())
			}
		})
	}
}

// reviewsCounted are the results that occurred, by webhook.
func reviewsCounted(t testing.TB, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "celery_hpa_zero_reviews_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				counted[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return counted
}

func TestNoLookThatIsLateAllows(t *testing.T) {
	const late = "celery-hpa: not to zero: the target could not be looked at: no answer within 2s"
	for _, tt := range []struct {
		rule string
		look func(ctx context.Context, t target.Target) idle.Observation
		want string // empty: allowed
	}{
		{"just in time allows", func(context.Context, target.Target) idle.Observation {
			time.Sleep(2*time.Second - 1)
			return observation(0)
		}, ""},
		{"late does not", func(context.Context, target.Target) idle.Observation {
			time.Sleep(2*time.Second + 1)
			return observation(0)
		}, late},
		{"what was found late counts", func(context.Context, target.Target) idle.Observation {
			time.Sleep(3 * time.Second)
			return observation(1)
		}, "celery-hpa: not to zero: queue redis/celery: 1 message waits"},
		{"a look is bounded by the budget", func(ctx context.Context, _ target.Target) idle.Observation {
			<-ctx.Done()
			return idle.Observation{QueuesErr: ctx.Err()}
		}, "celery-hpa: not to zero: its queues: context deadline exceeded"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := waiting(0)
				n.look = tt.look
				zero, _, _ := n.handlers(t)
				got := answerOf(t, post(t.Context(), zero, askZero()))
				if got.Allowed != (tt.want == "") || !got.Allowed && got.Result.Message != tt.want {
					t.Errorf("answer %+v, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestFewLookAtOnce(t *testing.T) {
	const crowd = 100
	synctest.Test(t, func(t *testing.T) {
		n := waiting(0)
		release, looking := make(chan struct{}), make(chan struct{}, crowd)
		n.look = func(context.Context, target.Target) idle.Observation {
			looking <- struct{}{}
			<-release
			return observation(0)
		}
		zero, _, _ := n.handlers(t)
		answers := make(chan string, crowd)
		for range crowd {
			go func() { answers <- post(t.Context(), zero, askZero()).Body.String() }()
		}
		synctest.Wait()
		most := len(looking)
		time.Sleep(2 * time.Second) // those that wait for their turn give up
		synctest.Wait()
		close(release)
		allowed, crowded := 0, 0
		for range crowd {
			switch text := <-answers; {
			case strings.Contains(text, `"allowed":true`):
				allowed++
			case strings.Contains(text, "too many are being looked at"):
				crowded++
			}
		}
		if most != 32 || allowed != 0 || crowded != crowd-32 {
			t.Errorf("%d looked at once, %d were allowed, %d gave up; want 32, 0 and %d", most, allowed, crowded, crowd-32)
		}
	})
}

func TestZeroRefusesInFewWords(t *testing.T) {
	n := waiting(0)
	n.look = func(context.Context, target.Target) idle.Observation {
		return idle.Observation{QueuesErr: errors.New(strings.Repeat("é", 2000))}
	}
	zero, _, _ := n.handlers(t)
	got := answerOf(t, post(t.Context(), zero, askZero())).Result.Message
	if length := len([]rune(got)); length > 700 || !strings.HasSuffix(got, "é…") {
		t.Errorf("a message of %d characters that ends with %q", length, got[len(got)-10:])
	}
}

func TestLooksRegisterTheirMetricsOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := waiting(0)
	for i, wantErr := range []bool{false, true} {
		if _, err := admission.NewLooks(n, n, nil, slog.New(slog.DiscardHandler), registry); (err != nil) != wantErr {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
}

func FuzzZero(f *testing.F) {
	for _, body := range []string{askZero(), askZero(`"replicas": 1`, `"replicas": -1`), askZero(`{"spec": {}}`, "null"), askZero(`{"spec": {}}`, "[]"), "{}"} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		zero, notice, registry := waiting(3).handlers(t)
		response := post(t.Context(), zero, body)
		allowed := strings.Contains(response.Body.String(), `"allowed":true`)
		if counted := reviewsCounted(t, registry); response.Code == http.StatusOK && allowed != (counted["zero ignored"] == 1) {
			t.Errorf("answer %q, counted %v: only what is no step to zero is allowed", response.Body, counted)
		}
		if response := post(t.Context(), notice, body); response.Code == http.StatusOK && !strings.Contains(response.Body.String(), `"allowed":true`) {
			t.Errorf("notice: answer %q, want it to allow", response.Body)
		}
	})
}
