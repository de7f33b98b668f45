package e2e_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

var (
	taskTime           = flag.Duration("task-time", 3*time.Second, "for how long each task of a burst to zero workers executes")
	prefetch           = flag.Int("prefetch", 4, "Celery's worker_prefetch_multiplier then; 4 is its default")
	burstSync          = flag.Duration("burst-hpa-sync", hpaSync, "how often the HPA looks then")
	burstStabilization = flag.Duration("burst-hpa-stabilization", 2*hpaSync, "for how long it remembers higher proposals then")
)

// circle is a way to zero and back.
type circle struct {
	broker           playground.Broker
	hpaSleeps, early bool
}

func (c circle) String() string {
	return fmt.Sprintf("%s, minReplicas %d, early ack %t", c.broker.Title(), 1-boolInt(c.hpaSleeps), c.early)
}

// events are the reasons of those that there must be in the end.
func (c circle) events() []string {
	if c.hpaSleeps {
		return []string{"SuccessfulRescale", "WokenUp"}
	}
	return []string{"ScaledToZero", "WokenUp"}
}

// circles are all that there are, or two that have nothing in common.
func circles() []circle {
	if !*every {
		return []circle{{playground.Redis, false, true}, {playground.RabbitMQ, true, false}}
	}
	var all []circle
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		for _, hpaSleeps := range []bool{false, true} {
			all = append(all, circle{broker, hpaSleeps, true}, circle{broker, hpaSleeps, false})
		}
	}
	return all
}

// TestToZeroAndBack sends a burst to a fleet at zero, of workers with Celery's own
// prefetch and Kubernetes' own grace period, and waits until it is at zero again.
func TestToZeroAndBack(t *testing.T) {
	for _, c := range circles() {
		t.Run(c.String(), func(t *testing.T) {
			p := startSleeper(t, playground.Options{
				Broker: c.broker, MaxReplicas: 10, HPASyncPeriod: *burstSync, DownscaleStabilization: *burstStabilization,
				Workers: playground.Fleet{HPASleeps: c.hpaSleeps, AcksEarly: c.early, Prefetch: *prefetch, GracePeriod: 30 * time.Second},
			})
			testBurst(t, p)
			checkEvents(t, p, c.events())
		})
	}
}

func testBurst(t *testing.T, p *playground.Playground) {
	t.Helper()
	const tasks, most = 20, 10
	awaitAsleep(t, p)
	sent := send(t, p, playground.Batch{Tasks: tasks, Each: *taskTime})
	woke := awaitWake(t, p, sent.First)
	grown := awaitChange(t, p, sent.First, "a slot for each task", func(n int32) bool { return n == most })
	// Workers that start first take many messages, Celery's prefetch: others then have
	// none, and the burst takes several times as long as a task.
	bound := patience + tasks/playground.Concurrency**taskTime
	if err := p.Await(t.Context(), bound, func(s playground.Status) bool { return s.Finished == tasks }); err != nil {
		t.Fatalf("every task to finish: %v", err)
	}
	awaitAsleep(t, p)
	checkTasks(t, p, tasks)
	checkOnce(t, p)
	awakeUntilFinished(t, p, sent)
	changes := since(t, p, sent.First)
	ended, slept := lastEnd(t, p), changes[len(changes)-1].At
	t.Logf("first replica %s after the first message, %d after %s, %s after the last; all finished after %s = %.2f × a task; zero %s after that; replicas: %v",
		woke.At.Sub(sent.First), most, grown.At.Sub(sent.First), grown.At.Sub(sent.Last),
		ended.Sub(sent.First), ended.Sub(sent.First).Seconds()/taskTime.Seconds(), slept.Sub(ended), changes)
}

// checkEvents looks for what has happened where people look first.
func checkEvents(t *testing.T, p *playground.Playground, reasons []string) {
	t.Helper()
	for _, reason := range reasons {
		waitFor(t, "kubectl describe hpa to tell of "+reason, func() bool {
			return strings.Contains(kubectl(t, p, "describe", "hpa", playground.Workers), reason)
		})
	}
}
