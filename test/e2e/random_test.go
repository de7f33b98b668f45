package e2e_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

var (
	randomTasks = flag.Int("random-tasks", 40, "how many tasks of random length to send")
	randomTime  = flag.Duration("random-time", 45*time.Second, "over how long to send them")
)

// TestEveryTaskRunsOnceWhileTheFleetMoves sends tasks of random length in bursts and
// pauses, so that the HPA moves the fleet up and down.
func TestEveryTaskRunsOnceWhileTheFleetMoves(t *testing.T) {
	const bursts, slots = 8, 2
	longest := *randomTime / 4
	p := startFleet(t, playground.Redis, playground.Fleet{AcksEarly: true, Concurrency: slots})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	sent := 0
	for burst := range bursts {
		n := *randomTasks/bursts + boolInt(burst < *randomTasks%bursts)
		for range n {
			length := time.Duration(random.ExpFloat64() * float64(longest) / 4)
			if err := p.Publish(t.Context(), 1, min(length, longest)); err != nil {
				t.Fatal(err)
			}
		}
		sent += n
		time.Sleep(time.Duration(random.Float64() * 2 * float64(*randomTime) / bursts)) // the load, not a wait for a state
	}
	await(t, p, "every task to finish", func(s playground.Status) bool { return s.Finished >= sent })
	executions, err := p.Executions()
	if err != nil {
		t.Fatal(err)
	}
	if len(executions) != sent {
		t.Errorf("%d tasks were executed, %d sent", len(executions), sent)
	}
	checkOnce(t, p)
	began, ended := podsOf(p)
	t.Logf("%d tasks in %d worker pods, of which %d have ended", sent, began, ended)
	if ended == 0 {
		t.Error("the fleet was never scaled down: nothing was tried")
	}
}

func boolInt(is bool) int {
	if is {
		return 1
	}
	return 0
}
