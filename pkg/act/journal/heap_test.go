package journal_test

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// heap is how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func newQuiet(b *testing.B) *journal.Journal {
	b.Helper()
	return newJournal(b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// fill has each of some targets decide as often as decisions are kept.
func fill(j *journal.Journal, targets int) {
	for i := range targets {
		t := worker()
		t.HPA = fmt.Sprint("worker-", i)
		for n := range 50 {
			j.Decided(t, crowded(), decision(idle.Hold, idle.Work, fmt.Sprintf("there is work in queue redis/queue-%d and 9 more", n)), start())
		}
	}
}

// crowded is an observation with strings of its own, as each one has.
func crowded() idle.Observation {
	o := idle.Observation{Replicas: 5, Pods: 5, Wanted: 5}
	for i := range 20 {
		depth := queue.Depth{Backlog: queue.Known(3, start()), InFlight: queue.Known(1, start()), Scheduled: queue.Known(0, start())}
		if i == 0 {
			depth.InFlight = queue.Unknown(errors.New("the workers of the queue have not answered within 2s; what they hold is not known"))
		}
		o.Queues = append(o.Queues, idle.Queue{Name: fmt.Sprintf("redis/queue-%d", i), Depth: depth})
		o.Workers = append(o.Workers, idle.Worker{Name: fmt.Sprintf("airflow-worker-5f6d8c7b9-%05d", i), Reason: fmt.Sprintf("executes %d tasks", i)})
	}
	return o
}
