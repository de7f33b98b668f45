package unserved_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes/typed/autoscaling/v2"

	"github.com/celery-hpa/celery-hpa/pkg/act/unserved"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// world is a namespace with HPAs, and who is told. The real API server answers in
// test/celerybroker; here it is what is known that matters, and when.
type world struct {
	client.HorizontalPodAutoscalerInterface
	served, known bool
	hpas          []autoscalingv2.HorizontalPodAutoscaler
	err           error
	looks         int
	told          []string
}

func (w *world) HorizontalPodAutoscalers(string) client.HorizontalPodAutoscalerInterface { return w }

func (w *world) List(context.Context, metav1.ListOptions) (*autoscalingv2.HorizontalPodAutoscalerList, error) {
	w.looks++
	return &autoscalingv2.HorizontalPodAutoscalerList{Items: w.hpas}, w.err
}

// Unserved implements unserved.Journal.
func (w *world) Unserved(t target.Target, _ time.Time) { w.told = append(w.told, t.HPA) }

func hpa(name, metric string) autoscalingv2.HorizontalPodAutoscaler {
	return autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "airflow", Name: name, UID: types.UID(name)},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: metric}},
		}}},
	}
}

// run asks every 15 s, as HPAs do, and does something before each question.
func run(t *testing.T, w *world, questions int, before func(question int)) *strings.Builder {
	t.Helper()
	log := &strings.Builder{}
	synctest.Test(t, func(t *testing.T) {
		f := unserved.New(w, func(string) (bool, bool) { return w.served, w.known }, w, slog.New(slog.NewTextHandler(log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx) }()
		for i := range questions {
			before(i)
			f.Asked("airflow")
			time.Sleep(15 * time.Second)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return log
}

func nothing(int) {}

func TestHPAThatAsksInVainIsToldOnce(t *testing.T) {
	w := &world{known: true, hpas: []autoscalingv2.HorizontalPodAutoscaler{hpa("ours", "celery_queue_tasks"), hpa("theirs", "lag"), hpa("workers", "Celery_busy_workers")}}
	run(t, w, 40, nothing)
	if want := []string{"ours", "workers"}; !slices.Equal(w.told, want) {
		t.Errorf("in ten minutes %v were told, want %v", w.told, want)
	}
	if w.looks > 10 {
		t.Errorf("%d looks in ten minutes", w.looks)
	}
}

func TestOneThatIsNewIsToldWithinAMinute(t *testing.T) {
	w := &world{known: true, hpas: []autoscalingv2.HorizontalPodAutoscaler{hpa("ours", "celery_queue_tasks")}}
	run(t, w, 8, func(question int) {
		if question == 3 {
			w.hpas = append(w.hpas, hpa("new", "celery_queue_backlog"))
		}
	})
	if want := []string{"ours", "new"}; !slices.Equal(w.told, want) {
		t.Errorf("%v were told, want %v", w.told, want)
	}
}

func TestReminder(t *testing.T) {
	w := &world{known: true, hpas: []autoscalingv2.HorizontalPodAutoscaler{hpa("ours", "celery_queue_tasks")}}
	run(t, w, 150, nothing)
	if len(w.told) != 2 {
		t.Errorf("told %d times in 37 minutes, want 2", len(w.told))
	}
}

func TestNobodyIsToldTooEarly(t *testing.T) {
	for name, prepare := range map[string]func(*world, int){
		"brokers that are not known are not absent": func(w *world, _ int) { w.known = false },
		"a broker that comes with the HPA":          func(w *world, question int) { w.served = question > 0 },
		"a broker that comes and goes":              func(w *world, question int) { w.served = question%2 == 1 },
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{known: true, hpas: []autoscalingv2.HorizontalPodAutoscaler{hpa("ours", "celery_queue_tasks")}}
			run(t, w, 20, func(question int) { prepare(w, question) })
			if len(w.told) > 0 {
				t.Errorf("%v were told", w.told)
			}
		})
	}
}

func TestLooksThatFailAreLoggedOnce(t *testing.T) {
	w := &world{known: true, err: errors.New("not now")}
	log := run(t, w, 40, nothing)
	if n := strings.Count(log.String(), "not now"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, log)
	}
}
