package leader

import (
	"log/slog"
	"testing"
	"time"
)

// TestWhoBeginsToLeadIsTold tells of each beginning once, also where a renewal came so late
// that the lease had ceased to be ours.
func TestWhoBeginsToLeadIsTold(t *testing.T) {
	const renew = 7 * time.Second
	l := newLease(nil, "celery-hpa", "a", slog.New(slog.DiscardHandler), renew)
	told := 0
	l.led = func() {
		told++
		if !l.isOurs() {
			t.Error("it is told before it leads")
		}
	}
	now := time.Now()
	for _, step := range []struct {
		rule    string
		holder  string
		renewed time.Time
		want    int // told so far
	}{
		{"another one leads", "b", time.Time{}, 0},
		{"it has got the lease", "a", now, 1},
		{"it has renewed it", "a", now, 1},
		{"it has given it back", "", time.Time{}, 1},
		{"an answer that took too long", "a", now.Add(-renew), 1},
		{"it has got it again", "a", now, 2},
		{"its time is over, and nobody else's has begun", "a", now.Add(-renew), 2},
		{"it has renewed it after all", "a", now, 3},
	} {
		if l.note(step.holder, step.renewed); told != step.want {
			t.Errorf("%s: it was told %d times, want %d", step.rule, told, step.want)
		}
	}
}
