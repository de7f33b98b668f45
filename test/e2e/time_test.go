package e2e_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// TestHPAKeepsTheWaitUnderAMinute scales on the work there is, as
// deploy/examples/hpa-by-time.yaml does, with the periods that Kubernetes has by
// default.
func TestHPAKeepsTheWaitUnderAMinute(t *testing.T) {
	const promised = time.Minute
	loads := []struct {
		tasks  int
		length time.Duration
		always bool
	}{
		{150, 2 * time.Second, true},
		{30, 20 * time.Second, false},
	}
	for _, load := range loads {
		if !load.always && !*every {
			continue
		}
		t.Run(fmt.Sprintf("%d tasks of %s", load.tasks, load.length), func(t *testing.T) {
			const known = 6 // tasks, by which their length is known
			p := startByTime(t)
			if err := p.Publish(t.Context(), known, load.length); err != nil {
				t.Fatal(err)
			}
			await(t, p, "the first tasks to end", func(s playground.Status) bool { return s.Finished == known })
			if err := p.Publish(t.Context(), load.tasks, load.length); err != nil {
				t.Fatal(err)
			}
			most := int32(0)
			await(t, p, "all tasks to end", func(s playground.Status) bool {
				most = max(most, s.Ready)
				return s.Finished == known+load.tasks
			})
			executions, err := p.Executions()
			if err != nil {
				t.Fatal(err)
			}
			longest := time.Duration(0)
			for _, e := range executions[known:] {
				longest = max(longest, e.Waited)
			}
			t.Logf("the longest wait was %s, with %d workers", longest, most)
			if longest > promised {
				t.Errorf("a task has waited for %s, want %s at the most", longest, promised)
			}
			if most == 1 {
				t.Error("the fleet was never scaled: nothing was tried")
			}
			checkOnce(t, p)
		})
	}
}

func startByTime(t *testing.T) *playground.Playground {
	t.Helper()
	p, err := playground.Start(t.Context(), playground.Options{
		Output: os.Stdout, MaxReplicas: 10,
		Workers:       playground.Fleet{AcksEarly: true, Work: playground.Concurrency * 30 * time.Second},
		HPASyncPeriod: 15 * time.Second, DownscaleStabilization: 5 * time.Minute,
	})
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("stop the playground: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
