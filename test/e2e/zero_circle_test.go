package e2e_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

var (
	taskTime           = flag.Duration("task-time", 3*time.Second, "for how long each task of a burst to zero workers executes")
	prefetch           = flag.Int("prefetch", 4, "Celery's worker_prefetch_multiplier then; 4 is its default")
	burstSync          = flag.Duration("burst-hpa-sync", hpaSync, "how often the HPA looks then")
	burstStabilization = flag.Duration("burst-hpa-stabilization", 2*hpaSync, "for how long it remembers higher proposals then")
	beside             = flag.Bool("beside", false, "send the same burst first to as many workers that are started by hand, and compare")
)

// The burst: a slot for each task on the most workers that there may be.
const (
	burstTasks   = 20
	burstWorkers = burstTasks / playground.Concurrency
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
				Broker: c.broker, MaxReplicas: burstWorkers, HPASyncPeriod: *burstSync, DownscaleStabilization: *burstStabilization,
				Workers: playground.Fleet{HPASleeps: c.hpaSleeps, AcksEarly: c.early, Prefetch: *prefetch, GracePeriod: 30 * time.Second},
			})
			testBurst(t, p)
			checkEvents(t, p, c.events())
		})
	}
}

func testBurst(t *testing.T, p *playground.Playground) {
	t.Helper()
	reference, before := *taskTime, 0
	if *beside {
		reference, before = burstByHand(t, p), burstTasks
	}
	awaitAsleep(t, p)
	sent := send(t, p, playground.Batch{Tasks: burstTasks, Each: *taskTime})
	woke := awaitWake(t, p, sent.First)
	grown := awaitChange(t, p, sent.First, "a slot for each task", func(n int32) bool { return n == burstWorkers })
	awaitBurst(t, p, before+burstTasks)
	awaitAsleep(t, p)
	checkTasks(t, p, before+burstTasks)
	checkOnce(t, p)
	awakeUntilFinished(t, p, sent)
	changes := since(t, p, sent.First)
	ended, slept := lastEnd(t, p), changes[len(changes)-1].At
	t.Logf("first replica %s after the first message, %d after %s, %s after the last; all finished after %s = %.2f × %s; zero %s after that; replicas: %v",
		woke.At.Sub(sent.First), burstWorkers, grown.At.Sub(sent.First), grown.At.Sub(sent.Last),
		ended.Sub(sent.First), ended.Sub(sent.First).Seconds()/reference.Seconds(), reference, slept.Sub(ended), changes)
}

// awaitBurst blocks until so many tasks have finished. Workers that start first take
// many messages, Celery's prefetch: others then have none, and the burst takes several
// times as long as a task.
func awaitBurst(t *testing.T, p *playground.Playground, tasks int) {
	t.Helper()
	bound := patience + burstWorkers**taskTime
	if err := p.Await(t.Context(), bound, func(s playground.Status) bool { return s.Finished == tasks }); err != nil {
		t.Fatalf("every task to finish: %v", err)
	}
}

// burstByHand sends a burst to workers at zero that somebody scales, all at once, just
// before: no autoscaler can be faster. It returns how long that took.
func burstByHand(t *testing.T, p *playground.Playground) time.Duration {
	t.Helper()
	awaitAsleep(t, p)
	annotate(t, p, v1alpha1.AnnotationPaused, "true")
	scale(t, p, burstWorkers)
	sent := send(t, p, playground.Batch{Tasks: burstTasks, Each: *taskTime})
	awaitBurst(t, p, burstTasks)
	annotate(t, p, v1alpha1.AnnotationPaused, "")
	took := lastEnd(t, p).Sub(sent.First)
	t.Logf("%d workers started by hand have finished all after %s = %.2f × a task", burstWorkers, took, took.Seconds()/taskTime.Seconds())
	return took
}

// checkEvents looks for what has happened where people look first.
func checkEvents(t *testing.T, p *playground.Playground, reasons []string) {
	t.Helper()
	for _, reason := range reasons {
		eventually.Holds(t, patience, "kubectl describe hpa to tell of "+reason, func() bool {
			return strings.Contains(kubectl(t, p, "describe", "hpa", playground.Workers), reason)
		})
	}
}
