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
	taskTime   = flag.Duration("task-time", 3*time.Second, "for how long each task of a burst to zero workers executes")
	burstSync  = flag.Duration("burst-hpa-sync", hpaSync, "how often the HPA looks while there is such a burst")
	burstSteps = flag.Duration("burst-hpa-stabilization", 2*hpaSync, "for how long it remembers higher proposals")
)

// TestToZeroAndBack sends a burst to a fleet at zero, of workers with Celery's own
// prefetch and Kubernetes' own grace period, and waits until it is at zero again.
func TestToZeroAndBack(t *testing.T) {
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		for _, hpaSleeps := range []bool{false, true} {
			for _, early := range []bool{true, false} {
				always := broker == playground.Redis && !hpaSleeps && early || broker == playground.RabbitMQ && hpaSleeps && !early
				if !always && !*every {
					continue
				}
				t.Run(fmt.Sprintf("%s, minReplicas %d, early ack %t", broker.Title(), 1-boolInt(hpaSleeps), early), func(t *testing.T) {
					p := startSleeper(t, playground.Options{
						Broker: broker, MaxReplicas: 10, HPASyncPeriod: *burstSync, DownscaleStabilization: *burstSteps,
						Workers: playground.Fleet{HPASleeps: hpaSleeps, AcksEarly: early, Prefetch: 4, GracePeriod: 30 * time.Second},
					})
					if hpaSleeps {
						testBurst(t, p, "SuccessfulRescale", "WokenUp")
					} else {
						testBurst(t, p, "ScaledToZero", "WokenUp")
					}
				})
			}
		}
	}
}

func testBurst(t *testing.T, p *playground.Playground, events ...string) {
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
	checkEvents(t, p, events)
	changes := since(t, p, sent.First)
	ended, slept := lastEnd(t, p), changes[len(changes)-1].At
	t.Logf("first replica %s after the first message, %d after %s, %s after the last; all finished after %s = %.2f × a task; zero %s after that; replicas: %v",
		woke.At.Sub(sent.First), most, grown.At.Sub(sent.First), grown.At.Sub(sent.Last),
		ended.Sub(sent.First), ended.Sub(sent.First).Seconds()/taskTime.Seconds(), slept.Sub(ended), changes)
}

// checkEvents looks for what has happened where people look first.
func checkEvents(t *testing.T, p *playground.Playground, want []string) {
	t.Helper()
	said := kubectl(t, p, "describe", "hpa", playground.Workers)
	for _, reason := range want {
		if !strings.Contains(said, reason) {
			t.Errorf("kubectl describe hpa does not tell of %s:\n%s", reason, said)
		}
	}
}
