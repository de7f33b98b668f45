package rabbitmq

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAQueueThatIsRefusedIsAskedAboutLessAndLessOften(t *testing.T) {
	r, now := refusals{}, time.Now()
	var pauses []string
	for range 9 {
		r.add("missing", errors.New("refused"), now)
		for pause := time.Second; ; pause += time.Second {
			if names, _ := r.toAsk([]string{"missing"}, now.Add(pause-1)); len(names) > 0 {
				t.Fatalf("it is asked about after less than %s", pause)
			}
			if names, _ := r.toAsk([]string{"missing"}, now.Add(pause)); len(names) == 0 {
				continue
			}
			pauses, now = append(pauses, pause.String()), now.Add(pause)
			break
		}
	}
	if diff := cmp.Diff([]string{"1s", "2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s", "1m0s"}, pauses); diff != "" {
		t.Errorf("the pauses are others (-want +got):\n%s", diff)
	}
}

func TestOtherQueuesAreAlwaysAskedAbout(t *testing.T) {
	r, now := refusals{}, time.Now()
	queues := []string{"a", "b", "c"}
	check := func(what string, at time.Time, want []string, doubts map[string]bool) {
		t.Helper()
		names, again := r.toAsk(queues, at)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s others are asked about (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(doubts, again); diff != "" {
			t.Errorf("%s others are doubtful (-want +got):\n%s", what, diff)
		}
	}
	check("before all,", now, queues, nil)
	r.add("b", errors.New("refused"), now)
	check("within the pause", now, []string{"a", "c"}, map[string]bool{})
	check("after the pause", now.Add(firstPause), queues, map[string]bool{"b": true})
	delete(r, "b")
	check("after an answer", now, queues, nil)
}

// Those that have waited longest come first, so that all have their turn.
func TestManyRefusedQueuesTakeTurns(t *testing.T) {
	r, now := refusals{}, time.Now()
	var queues []string
	for i := range 3 * mostAgain {
		queues = append(queues, fmt.Sprint(i))
		r.add(queues[i], errors.New("refused"), now)
	}
	now = now.Add(firstPause)
	asked := map[string]bool{}
	for range 3 {
		names, again := r.toAsk(queues, now)
		if len(names) != mostAgain || len(again) != mostAgain {
			t.Fatalf("%d queues are asked about, %d of them again, want %d", len(names), len(again), mostAgain)
		}
		for _, name := range names {
			asked[name] = true
			r.add(name, errors.New("refused"), now)
		}
		slices.Reverse(queues)
	}
	if len(asked) != len(queues) {
		t.Errorf("%d of %d queues had their turn", len(asked), len(queues))
	}
}
