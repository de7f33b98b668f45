package zeroscaler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// world is a cluster and a broker in memory, of which every fault can be had. Each
// target has a queue of its own name.
type world struct {
	mu       sync.Mutex
	targets  []target.Target
	changed  chan struct{}
	replicas map[string]int32
	version  map[string]int
	waiting  map[string]int64
	unknown  bool  // nothing is known of any queue
	refusal  error // of the next write
	lost     error // why no size can be read
	leads    bool
	watched  map[queue.BrokerRef][]string
	hurried  int
	said     []string // by the journal, of writes and mistakes
	began    time.Time
}

func newWorld(names ...string) *world {
	w := &world{
		changed: make(chan struct{}), replicas: map[string]int32{}, version: map[string]int{}, waiting: map[string]int64{},
		leads: true, watched: map[queue.BrokerRef][]string{}, began: time.Now(),
	}
	for _, n := range names {
		w.targets = append(w.targets, targetOf(n))
	}
	return w
}

func targetOf(n string) target.Target {
	return target.Target{
		Namespace: "airflow", HPA: n, Kind: "Deployment", APIVersion: "apps/v1", Name: n, MinReplicas: 1, MaxReplicas: 10,
		Zero: target.Zero{Wanted: true, Window: 5 * time.Second},
	}
}

func ref() queue.BrokerRef { return queue.BrokerRef{Namespace: "airflow", Name: "redis"} }

// start runs a scaler in a bubble until the test ends.
func (w *world) start(t *testing.T) *zeroscaler.Scaler {
	t.Helper()
	s := zeroscaler.New(zeroscaler.Parts{
		Scales: w, Senses: w, Journal: journal{w}, Turns: zeroscaler.NewTurns(), Now: time.Now,
		Leads: func() bool { return locked(w, func() bool { return w.leads }) },
	}, w, w, w)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run() = %v", err)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	synctest.Wait()
	return s
}

// locked reads or changes the world.
func locked[T any](w *world, do func() T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return do()
}

// publish lets messages wait in the queue of a target, and has the lookout tell of it.
func (w *world) publish(s *zeroscaler.Scaler, name string, n int64) {
	total := locked(w, func() int64 { w.waiting[name] += n; return w.waiting[name] })
	s.Waiting(ref(), map[string]queue.Count{name: queue.Known(total, time.Now())})
}

// say notes something with the time since the beginning.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, fmt.Sprintf("%s ", time.Since(w.began))+fmt.Sprintf(format, args...))
}

func (w *world) log() []string { return locked(w, func() []string { return slices.Clone(w.said) }) }

// set makes these the targets.
func (w *world) set(targets ...target.Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = targets
	close(w.changed)
	w.changed = make(chan struct{})
}

// OptedIn implements zeroscaler.Targets.
func (w *world) OptedIn() []target.Target {
	return locked(w, func() []target.Target { return slices.Clone(w.targets) })
}

// Targets implements zeroscaler.Targets.
func (w *world) Targets(string) []target.Target { return w.OptedIn() }

// Changed implements zeroscaler.Targets.
func (w *world) Changed() <-chan struct{} {
	return locked(w, func() <-chan struct{} { return w.changed })
}

// Get implements zeroscaler.Scales.
func (w *world) Get(_ context.Context, t target.Target) (zeroscaler.Scale, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return zeroscaler.Scale{
		Replicas: w.replicas[t.Name], Pods: w.replicas[t.Name], ResourceVersion: fmt.Sprint(w.version[t.Name]),
	}, w.lost
}

// Set implements zeroscaler.Scales.
func (w *world) Set(_ context.Context, t target.Target, seen zeroscaler.Scale, replicas int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refusal; err != nil {
		w.refusal = nil
		return err
	}
	if seen.ResourceVersion != fmt.Sprint(w.version[t.Name]) {
		return zeroscaler.ErrConflict
	}
	w.replicas[t.Name] = replicas
	w.version[t.Name]++
	return nil
}

// Observe implements zeroscaler.Senses: one worker for each message.
func (w *world) Observe(t target.Target, _ zeroscaler.Scale, now time.Time) idle.Observation {
	w.mu.Lock()
	defer w.mu.Unlock()
	depth := queue.Depth{Backlog: queue.Known(w.waiting[t.Name], now), InFlight: queue.Known(0, now), Scheduled: queue.Known(0, now)}
	if w.unknown {
		depth.Backlog = queue.Unknown(context.DeadlineExceeded)
	}
	return idle.Observation{
		Queues: []idle.Queue{{Name: "redis/" + t.Name, Depth: depth}}, Interval: time.Second,
		Wanted: min(int32(w.waiting[t.Name]), t.MaxReplicas),
	}
}

// Look implements zeroscaler.Senses.
func (w *world) Look(_ context.Context, t target.Target, seen zeroscaler.Scale) idle.Observation {
	return w.Observe(t, seen, time.Now())
}

// Queues implements zeroscaler.Senses.
func (w *world) Queues(t target.Target) map[queue.BrokerRef][]string {
	return map[queue.BrokerRef][]string{ref(): {t.Name}}
}

// Watch implements zeroscaler.Lookouts.
func (w *world) Watch(ref queue.BrokerRef, queues []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched[ref] = queues
}

// Hurry implements zeroscaler.Sampling.
func (w *world) Hurry(queue.BrokerRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurried++
}

// journal writes down what a person would want to know.
type journal struct{ w *world }

func (j journal) Decided(target.Target, idle.Observation, idle.Decision, time.Time) {}
func (j journal) Slept(t target.Target, from int32, d idle.Decision, _ time.Time) {
	j.w.say("%s slept from %d: %s", t.Name, from, d.Reason)
}

func (j journal) Woke(t target.Target, to int32, _ idle.Decision, waited time.Duration, _ time.Time) {
	j.w.say("%s woke to %d after %s", t.Name, to, waited)
}

func (j journal) Raised(t target.Target, from, to int32, _ idle.Decision, _ time.Time) {
	j.w.say("%s raised from %d to %d", t.Name, from, to)
}

func (j journal) Refused(t target.Target, cause idle.Cause, message string, _ time.Time) {
	j.w.say("%s refused, %s: %s", t.Name, cause, message)
}

func (j journal) Failed(t target.Target, action idle.Action, err error, _ time.Time) {
	j.w.say("%s: %s failed: %v", t.Name, action, err)
}

// Mistaken tells of each mistake once, as a journal does.
func (j journal) Mistaken(t target.Target, _ time.Time) {
	text := fmt.Sprintf("%s: %v", t.Name, t.Zero.Mistake)
	if said := j.w.log(); len(said) == 0 || !strings.HasSuffix(said[len(said)-1], text) {
		j.w.say("%s", text)
	}
}

func (j journal) Delayed(t target.Target, wait time.Duration, _ time.Time) {
	j.w.say("%s waits for %s", t.Name, wait)
}
func (j journal) Forget(t target.Target) { j.w.say("%s forgotten", t.Name) }
