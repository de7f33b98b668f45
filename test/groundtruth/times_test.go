package groundtruth_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

func TestTimesAreTheTruth(t *testing.T) {
	t.Parallel()
	timesAreTheTruth(t, setup{})
}

// timesAreTheTruth lets workers execute tasks of a known length until their mean
// runtime is known well.
func timesAreTheTruth(t *testing.T, s setup) {
	const (
		slots, sent, enough = 2, 100, 60
		length              = 1200 * time.Millisecond
	)
	i := install(t, s)
	kind := "redis: {}"
	if s.rabbitMQ != nil {
		kind = fmt.Sprintf("rabbitmq: {managementURL: %q}", s.rabbitMQ.server.ManagementURL())
	}
	metrics := serve(t, i.url, kind)
	i.StartWorker(t, servers.WorkerOptions{Concurrency: slots, Prefetch: 1})
	began := time.Now()
	i.Publish(t, servers.CeleryTask{N: sent, Sleep: length})
	i.await(t, func() string {
		if n := len(i.Record(t).Finished); n < enough {
			return fmt.Sprintf("%d of %d tasks have finished", n, enough)
		}
		return ""
	})
	// One after the other: a few tasks may end in between.
	tasks, work := metrics.number(t, "celery_queue_tasks"), metrics.number(t, "celery_queue_work_seconds")
	backlog, wait := metrics.number(t, "celery_queue_backlog"), metrics.number(t, "celery_queue_wait_seconds")
	within(t, "the mean runtime", work/tasks, length.Seconds(), 0.1)
	within(t, "the wait", wait, backlog*length.Seconds()/slots, 0.2)
	if s.rabbitMQ != nil {
		return
	}
	if oldest := metrics.number(t, "celery_queue_oldest_task_age_seconds"); oldest > time.Since(began).Seconds() {
		t.Errorf("the oldest task is said to wait for %.1f s, none for more than %s", oldest, time.Since(began))
	}
}

// within allows a share of what is wanted.
func within(t *testing.T, what string, got, want, share float64) {
	t.Helper()
	if got < want*(1-share) || got > want*(1+share) {
		t.Errorf("%s is %.2f s, want %.2f s or %.0f %% more or less", what, got, want, 100*share)
	}
}

// number is a metric of Celery's default queue.
func (s served) number(t *testing.T, name string) float64 {
	t.Helper()
	n, err := s.milli(t, name, "celery")
	if err != nil {
		t.Fatal(err)
	}
	return float64(n) / 1000
}
