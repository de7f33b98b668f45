package queue_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

func TestTasks(t *testing.T) {
	at := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	known := func(n int64) queue.Count { return queue.Known(n, at) }
	lost := func(why string) queue.Count { return queue.Unknown(errors.New(why)) }
	tests := []struct {
		rule  string
		depth queue.Depth
		want  int64
		err   string
	}{
		{"what is scheduled is no work yet", queue.Depth{Backlog: known(5), InFlight: known(3), Scheduled: known(2)}, 6, ""},
		{"nothing is zero", queue.Depth{Backlog: known(0), InFlight: known(0), Scheduled: known(0)}, 0, ""},
		{"one unknown count makes the sum unknown", queue.Depth{Backlog: known(5), InFlight: lost("a"), Scheduled: known(0)}, 0, "a"},
		{"each reason is said", queue.Depth{Backlog: lost("a"), InFlight: lost("b"), Scheduled: known(0)}, 0, "a\nb"},
		{"a reason is said once", queue.Depth{Backlog: lost("a"), InFlight: lost("b"), Scheduled: lost("a")}, 0, "a\nb"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := tt.depth.Tasks()
			text := ""
			if got.Err != nil {
				text = got.Err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" || got.N != tt.want {
				t.Errorf("%d, want %d; error (-want +got):\n%s", got.N, tt.want, diff)
			}
		})
	}
}

func TestTasksAreAsOldAsTheirOldestCount(t *testing.T) {
	old := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	fresh := old.Add(time.Second)
	d := queue.Depth{Backlog: queue.Known(1, fresh), InFlight: queue.Known(1, old), Scheduled: queue.Known(0, fresh)}
	if got := d.Tasks().At; !got.Equal(old) {
		t.Errorf("At is %s, want %s", got, old)
	}
}
