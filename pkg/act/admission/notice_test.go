package admission_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

func TestNotice(t *testing.T) {
	const wakes = `celery-hpa: Deployment airflow/worker is scaled up as soon as a task waits, unless HorizontalPodAutoscaler worker-hpa is annotated celery-hpa.io/paused: "true"`
	unknown := waiting(0)
	unknown.look = func(context.Context, target.Target) idle.Observation {
		return idle.Observation{QueuesErr: errors.Join(errors.New("redis does not answer"), errors.New("rabbitmq neither"))}
	}
	many := waiting(0)
	many.look = func(context.Context, target.Target) idle.Observation {
		o := observation(2)
		for _, name := range []string{"a", "b", "c", "d"} {
			o.Workers = append(o.Workers, idle.Worker{Name: name, Reason: "executes 1 task"})
		}
		return o
	}
	paused, mistaken := waiting(3), waiting(3)
	paused.targets[0].Zero.Paused = true
	mistaken.targets[0].Zero.Mistake = errors.Join(errors.New("one thing"), errors.New("another"))
	for _, tt := range []struct {
		rule     string
		night    *night
		request  string
		warnings []string
		result   string
	}{
		{"nothing is left: what happens next", waiting(0), askZero(), []string{wakes}, "idle"},
		{"what is left", waiting(3), askZero(), []string{"celery-hpa: queue redis/celery: 3 messages wait", wakes}, "work"},
		{"what is not known, on one line", unknown, askZero(), []string{"celery-hpa: its queues: redis does not answer; rabbitmq neither", wakes}, "unknown"},
		{"little of much", many, askZero(), []string{
			"celery-hpa: queue redis/celery: 2 messages wait", "celery-hpa: pod a: executes 1 task", "celery-hpa: pod b: executes 1 task", "celery-hpa: and 2 more", wakes,
		}, "work"},
		{"a paused one stays", paused, askZero(), []string{"celery-hpa: Deployment airflow/worker stays at zero: HorizontalPodAutoscaler worker-hpa is annotated celery-hpa.io/paused"}, "paused"},
		{"a mistaken one stays, too", mistaken, askZero(), []string{
			"celery-hpa: queue redis/celery: 3 messages wait",
			"celery-hpa: Deployment airflow/worker stays at zero until somebody scales it: HorizontalPodAutoscaler worker-hpa: one thing; another",
		}, "work"},
		{"a dry run is the same", waiting(0), askZero(`"dryRun": false`, `"dryRun": true`), []string{wakes}, "dry_run"},
		{"the object itself is the same", waiting(0), askZero(`"subResource": "scale",`, ""), []string{wakes}, "idle"},
		{"others pass in silence", waiting(3), askZero(`"worker"`, `"web"`), nil, "ignored"},
		{"so does what is not yet known to be ours", &night{unsynced: true}, askZero(), nil, "unknown"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			_, notice, registry := tt.night.handlers(t)
			want := &admissionv1.AdmissionResponse{UID: "u-1", Allowed: true, Warnings: tt.warnings}
			if diff := cmp.Diff(want, answerOf(t, post(t.Context(), notice, tt.request))); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]float64{"notice " + tt.result: 1}, reviewsCounted(t, registry)); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if len(tt.night.told) > 0 {
				t.Errorf("told %q of what was not refused", tt.night.told)
			}
		})
	}
}

func TestWarningsAreNotCutByTheAPIServer(t *testing.T) {
	long := strings.Repeat("é", 253)
	n := &night{targets: []target.Target{optedIn("apps/v1", "Deployment", long)}}
	n.look = func(context.Context, target.Target) idle.Observation {
		return idle.Observation{QueuesErr: errors.New(strings.Repeat("è", 1000))}
	}
	_, notice, _ := n.handlers(t)
	warnings := answerOf(t, post(t.Context(), notice, askZero(`"worker"`, `"`+long+`"`))).Warnings
	if len(warnings) != 2 || !strings.HasSuffix(warnings[1], `: "true"`) {
		t.Errorf("warnings %q, want two, the last one with its end", warnings)
	}
	for _, text := range warnings {
		if n := len([]rune(text)); n > 256 {
			t.Errorf("a warning of %d characters, want 256 at the most: %s", n, text)
		}
	}
}

func TestWhatIsNoReviewOfAStepToZeroIsRefused(t *testing.T) {
	zero, notice, _ := waiting(0).handlers(t)
	for _, handler := range []http.Handler{zero, notice} {
		if response := post(t.Context(), handler, "{}"); response.Code != http.StatusBadRequest {
			t.Errorf("answer %d %q, want %d", response.Code, response.Body, http.StatusBadRequest)
		}
	}
}
