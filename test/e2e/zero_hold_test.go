package e2e_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// TestWorkHoldsTheLastWorker has work that no queue shows: with an early
// acknowledgement what executes is not in the broker any more.
func TestWorkHoldsTheLastWorker(t *testing.T) {
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		t.Run(broker.Title(), func(t *testing.T) {
			p := startSleeper(t, playground.Options{Broker: broker, Workers: playground.Fleet{AcksEarly: true}})
			for _, c := range []struct {
				rule  string
				batch playground.Batch
			}{
				{"a task that executes", playground.Batch{Tasks: 1, Each: longTime}},
				{"a task that is held for its ETA", playground.Batch{Tasks: 1, Countdown: longTime}},
			} {
				t.Run(c.rule, func(t *testing.T) {
					awaitAsleep(t, p)
					before := len(executions(t, p))
					sent := send(t, p, c.batch)
					await(t, p, "the task to finish", func(s playground.Status) bool { return s.Finished > before })
					awaitAsleep(t, p)
					awakeUntilFinished(t, p, sent)
				})
			}
			checkTasks(t, p, 2)
		})
	}
}

// TestStrandedMessageWakesOneWorker has the last worker killed with a task in its
// hands, after somebody has put the fleet to zero: Redis keeps the message in unacked,
// and gives it to the next worker when it is overdue.
func TestStrandedMessageWakesOneWorker(t *testing.T) {
	p := startSleeper(t, playground.Options{
		Broker:  playground.Redis,
		Workers: playground.Fleet{GracePeriod: 5 * time.Second, VisibilityTimeout: 10 * time.Second},
	})
	if err := p.Publish(t.Context(), 1, longTask); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the task to start", func(s playground.Status) bool { return s.Started == 1 })
	zeroed := time.Now()
	scale(t, p, 0)
	await(t, p, "the worker to be killed", func(s playground.Status) bool { return s.Killed == 1 })
	if err := p.ReleaseTasks(); err != nil {
		t.Fatal(err)
	}
	awaitWake(t, p, zeroed)
	await(t, p, "the task to be given to the next worker", func(s playground.Status) bool { return s.Finished == 1 })
	awaitAsleep(t, p)
	var sizes []int32
	for _, c := range since(t, p, zeroed) {
		sizes = append(sizes, c.Replicas)
	}
	if want := []int32{0, 1, 0}; !slices.Equal(sizes, want) {
		t.Errorf("the replicas were %v, want %v", sizes, want)
	}
}

// TestSilentBrokerHoldsTheLastWorker pauses the broker while there is nothing to do: not
// to know is no idleness, and what was seen before does not count any more.
func TestSilentBrokerHoldsTheLastWorker(t *testing.T) {
	for _, broker := range []playground.Broker{playground.Redis, playground.RabbitMQ} {
		if broker == playground.RabbitMQ && !*every {
			continue
		}
		t.Run(fmt.Sprintf("%s is silent", broker.Title()), func(t *testing.T) {
			p := startSleeper(t, playground.Options{Broker: broker})
			pid := brokerPID(t, p)
			signal(t, pid, syscall.SIGSTOP)
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // the server may be gone
			holds(t, p, 1, "with a broker that is silent")
			again := time.Now()
			signal(t, pid, syscall.SIGCONT)
			slept := awaitChange(t, p, again, "to go to zero", func(n int32) bool { return n == 0 })
			if slept.At.Before(again.Add(idleWindow)) {
				t.Errorf("the workers went to zero %s after the broker was back, before the window of %s could have passed",
					slept.At.Sub(again), idleWindow)
			}
		})
	}
}
