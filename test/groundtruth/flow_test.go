package groundtruth_test

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// samplePause leaves something of two cores to those who are watched.
const samplePause = time.Millisecond

// flow is what bounds every sample while a number of sent tasks is executed.
//
// At the moment of a sample, each task sent is in exactly one place: waiting in
// a list (B), held in unacked (I), acknowledged (A), or on its way from the one
// to the other (N), because a worker takes a message from its list by one command
// and adds it to unacked by the next:
//
//	B + I + N + A = sent
//
// N is at most one for each worker, whose main process takes one message at a
// time. A cannot be seen, but the record bounds it. It is read before the sample
// (0) and after it (1), and what it lists only grows.
//
// Late acknowledgement follows the end of a task, which is recorded before. Until
// then a worker holds the task, and it holds no more than its prefetch count:
//
//	finished(0) − prefetch ≤ A ≤ finished(1)
//
// Early acknowledgement comes with the beginning of a task, of which the worker's
// main process hears at about the time at which the executing one records it. At
// most one task for each slot is acknowledged and not recorded yet, and again no
// more than the prefetch count is recorded and not acknowledged:
//
//	started(0) − prefetch ≤ A ≤ started(1) + slots
//
// And A is at least zero: never is there more than what was sent.
type flow struct {
	*installation
	sent int64
	late bool
	// workers, slots and prefetch are summed over all workers.
	workers, slots, prefetch int64
}

// newFlow starts the workers, which must all acknowledge alike.
func newFlow(t *testing.T, s setup, options ...servers.WorkerOptions) (*flow, []*servers.Worker) {
	t.Helper()
	f := &flow{installation: install(t, s), late: options[0].LateAck, workers: int64(len(options))}
	var workers []*servers.Worker
	for _, o := range options {
		f.slots += int64(o.Concurrency)
		f.prefetch += int64(o.Concurrency * o.Prefetch)
		workers = append(workers, f.StartWorker(t, o))
	}
	return f, workers
}

// publish sends tasks.
func (f *flow) publish(t *testing.T, task servers.CeleryTask) []string {
	t.Helper()
	ids := f.Publish(t, task)
	f.sent += int64(len(ids))
	return ids
}

// bounds are those of B + I, given the record before and after the sample.
func (f *flow) bounds(before, after progress) (low, high int64) {
	least, most := before.Finished, after.Finished
	if !f.late {
		least, most = before.Started, after.Started+f.slots
	}
	return f.sent - most - f.workers, f.sent - max(0, least-f.prefetch)
}

// statistics of the samples taken while tasks ran.
type statistics struct {
	samples int
	// unknown counts the samples in which some queue's count was not known.
	unknown int
	// gaps counts the samples that can only be explained by a message on its way.
	gaps int
}

// watch samples until done, and checks every sample.
func (f *flow) watch(t *testing.T, done func() bool) statistics {
	t.Helper()
	var s statistics
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("not done after %s; the record: %+v of %d", patience, f.progress(t), f.sent)
		}
		f.check(t, &s)
		time.Sleep(samplePause)
	}
	t.Logf("%+v", s)
	return s
}

// check takes one sample. Messages that cannot be attributed, because they were
// acknowledged while the sample was taken, are in flight for the sum.
func (f *flow) check(t *testing.T, s *statistics) {
	t.Helper()
	before := f.progress(t)
	sample, err := f.driver.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := f.progress(t)
	s.samples++
	sum, known := held(sample)
	if !known {
		s.unknown++
		return
	}
	low, high := f.bounds(before, after)
	if sum < low || sum > high {
		t.Errorf("backlog and in flight are %d, want %d to %d; the record was %+v before and %+v after; the sample: %+v",
			sum, low, high, before, after, sample.Queues)
	}
	if sum < low+f.workers {
		s.gaps++
	}
}

// held is everything that a sample saw; it is not known if some queue is not.
func held(s *queue.Sample) (sum int64, known bool) {
	sum = s.Unattributed
	for _, depth := range s.Queues {
		if depth.Tasks().Err != nil {
			return 0, false
		}
		sum += depth.Backlog.N + depth.InFlight.N
	}
	return sum, true
}
