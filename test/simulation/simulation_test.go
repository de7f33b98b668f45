package simulation_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	schedules = flag.Int("schedules", 20_000, "how many schedules to run")
	seed      = flag.Uint64("seed", 1, "the seed of the first schedule, and of the only one of TestSeed")
	lines     = flag.Int("lines", 150, "how many lines of a transcript to show")
	progress  = flag.Bool("progress", false, "tell of progress on stderr")
)

// outcome is what became of a schedule.
type outcome struct {
	seed    uint64
	marks   marks
	took    moment // of simulated time
	verdict string
	tale    []string
}

// simulate runs the schedule of a seed.
func simulate(seed uint64, isTold bool) outcome {
	w := newWorld(seed)
	if isTold {
		w.tale = &tale{}
	}
	defer w.end()
	w.begin()
	w.run(w.plan.healAt, nil)
	w.run(w.now+w.longest(), func() bool { return w.healed && w.broker.open == 0 })
	if w.broker.open == 0 {
		w.run(w.now+w.tillSleep(), func() bool { return w.cluster.size.replicas == 0 })
	}
	w.judge.ends()
	o := outcome{seed: seed, marks: w.marks, took: w.now, verdict: w.judge.verdict}
	if isTold {
		o.tale = w.tale.lines
	}
	return o
}

// longest bounds the time in which all tasks are finished once nothing fails any more.
func (w *world) longest() time.Duration {
	bound := 2*time.Minute + w.plan.visibility
	for _, t := range w.broker.tasks {
		if t.isOpen() {
			bound += t.length + max(0, t.eta-w.now)
		}
	}
	return bound
}

// tillSleep bounds the time in which a target without work goes to zero.
func (w *world) tillSleep() time.Duration {
	return w.plan.stabilization + 3*w.plan.hpaPeriod + 2*w.plan.spec.window + 45*time.Second
}

func TestSeed(t *testing.T) {
	o := simulate(*seed, true)
	if !testing.Verbose() && o.verdict == "" {
		return
	}
	report(t, o)
}

// report shows what has happened.
func report(t *testing.T, o outcome) {
	t.Helper()
	from := max(0, len(o.tale)-*lines)
	text := fmt.Sprintf("seed %d, after %s\n%s\n%s", o.seed, o.took, strings.Join(o.tale[from:], "\n"), o.verdict)
	if o.verdict == "" {
		t.Log(text)
		return
	}
	t.Errorf("%s\nagain: go test ./test/simulation -run Seed -seed %d", text, o.seed)
}

// TestSchedules runs many schedules. Each follows from its seed alone.
func TestSchedules(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1500)) // little is ever held
	c := campaign{began: time.Now()}
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(c.work)
	}
	running.Wait()
	slices.SortFunc(c.guilty, func(a, b outcome) int { return cmp.Compare(a.seed, b.seed) })
	for i, o := range c.guilty {
		if i == 0 {
			report(t, simulate(o.seed, true))
			continue
		}
		t.Errorf("seed %d: %s", o.seed, o.verdict)
	}
	t.Logf("%d schedules, %.0f simulated hours, in %s\n%s", c.ended, c.took.Hours(), time.Since(c.began).Round(time.Second), table(c.total, c.covered))
	for m, n := range c.covered {
		least := 10_000
		if m == int(pausedMeanwhile) {
			least = 200_000 // one of 20,000 schedules has it, or none
		}
		if n == 0 && c.ended >= least {
			t.Errorf("no schedule has had: %s. A simulation proves nothing about what it does not reach", names()[m])
		}
	}
}

// mostGuilty is after how many violations a campaign ends.
const mostGuilty = 5

// campaign is many schedules, on as many processors as there are.
type campaign struct {
	began time.Time
	next  atomic.Int64

	mu             sync.Mutex
	ended          int
	total, covered marks // how often, and in how many schedules
	took           time.Duration
	guilty         []outcome
}

// work runs schedules until there are no more.
func (c *campaign) work() {
	for {
		i := c.next.Add(1) - 1
		if i >= int64(*schedules) {
			return
		}
		c.take(simulate(*seed+uint64(i), false))
	}
}

func (c *campaign) take(o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
	c.total.add(o.marks)
	for m, n := range o.marks {
		c.covered[m] += min(n, 1)
	}
	c.took += o.took
	if o.verdict != "" {
		c.guilty = append(c.guilty, o)
		if *progress {
			fmt.Fprintf(os.Stderr, "seed %d: %s\n", o.seed, o.verdict)
		}
	}
	if len(c.guilty) >= mostGuilty {
		c.next.Store(int64(*schedules))
	}
	if *progress && c.ended%10_000 == 0 {
		fmt.Fprintf(os.Stderr, "%d schedules, %d violations, %.0f simulated hours, %s\n", c.ended, len(c.guilty), c.took.Hours(), time.Since(c.began).Round(time.Second))
	}
}

// table says how often everything happened, and in how many schedules.
func table(total, covered marks) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-55s %12s %12s\n", "", "times", "schedules")
	for m, name := range names() {
		fmt.Fprintf(&text, "%-55s %12d %12d\n", name, total[m], covered[m])
	}
	return text.String()
}
