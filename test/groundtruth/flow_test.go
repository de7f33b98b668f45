package groundtruth_test

import (
	"fmt"
	"slices"
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
//
// On RabbitMQ no task is on its way (N = 0): a message is ready or unacknowledged
// until it is acknowledged. But B and I are of two times. A list says how many were
// ready (R) and unacknowledged (U); later the driver asks for B, and makes of it
// I = U + max(0, R − B). If none was sent since the list, R can only fall, to B, so
// that
//
//	B + I = R + U = sent − A at the time of the list
//
// Of that A the driver knows the earliest time, which it gives for I: (0) is the last
// record before that, which for a quorum queue is one of 5 s ago, since it tells its
// numbers seldom. A sample whose I is of a time before the last message was sent says
// nothing: what was sent and taken since is in neither number. All others see every
// task that is not acknowledged, so that with late acknowledgement no queue looks idle
// that has a task unfinished. What a worker puts back is in both numbers until the
// next list: then there is too much, by no more than what it held.
type flow struct {
	*installation
	sent int64
	late bool
	// slots and prefetch are summed over all workers.
	slots, prefetch int64
	// gap is the most that N can be.
	gap int64
	// putBack is how much of what workers hold they may put back.
	putBack int64
	// published is when the last message had been sent.
	published time.Time
	// records are those read so far.
	records []record
}

// record is what was recorded by some time.
type record struct {
	at time.Time
	progress
}

// newFlow starts the workers, which must all acknowledge alike.
func newFlow(t *testing.T, s setup, options ...servers.WorkerOptions) (*flow, []*servers.Worker) {
	t.Helper()
	f := prepareFlow(t, s, options...)
	var workers []*servers.Worker
	for _, o := range options {
		workers = append(workers, f.StartWorker(t, o))
	}
	return f, workers
}

// prepareFlow is for workers that start later.
func prepareFlow(t *testing.T, s setup, options ...servers.WorkerOptions) *flow {
	t.Helper()
	f := &flow{installation: install(t, s), late: options[0].LateAck}
	if s.rabbitMQ == nil {
		f.gap = int64(len(options))
	}
	for _, o := range options {
		f.slots += int64(o.Concurrency)
		f.prefetch += int64(o.Concurrency * o.Prefetch)
	}
	return f
}

// publish sends tasks.
func (f *flow) publish(t *testing.T, task servers.CeleryTask) []string {
	t.Helper()
	ids := f.Publish(t, task)
	f.sent += int64(len(ids))
	f.published = time.Now()
	return ids
}

// keepRecord reads the record for a sample that follows.
func (f *flow) keepRecord(t *testing.T) {
	t.Helper()
	did := f.progress(t)
	f.records = append(f.records, record{time.Now(), did})
}

// before is the last record that was kept before some time, of no task if there is
// none.
func (f *flow) before(at time.Time) progress {
	for _, r := range slices.Backward(f.records) {
		if r.at.Before(at) {
			return r.progress
		}
	}
	return progress{}
}

// mayPutBack is said before workers that hold so many messages end. On Redis they
// take each from unacked and put it into its list in one transaction.
func (f *flow) mayPutBack(n int64) {
	if f.rabbitMQ != nil {
		f.putBack = n
	}
}

// bounds are those of B + I, given the record before and after.
func (f *flow) bounds(before, after progress) (low, high int64) {
	least, most := before.Finished, after.Finished
	if !f.late {
		least, most = before.Started, after.Started+f.slots
	}
	return f.sent - most - f.gap, f.sent - max(0, least-f.prefetch) + f.putBack
}

// uncounted says what is missing in a sample of all that was sent; it is empty if
// nothing is.
func (f *flow) uncounted(t *testing.T) string {
	t.Helper()
	f.keepRecord(t)
	sample, err := f.driver.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum, since, known := held(sample)
	if known && !since.Before(f.published) {
		return ""
	}
	return fmt.Sprintf("%d of %d tasks, counted %s before the last was sent", sum, f.sent, f.published.Sub(since))
}

// statistics of the samples taken while tasks ran.
type statistics struct {
	samples int
	// unknown counts the samples in which some queue's count was not known, or of
	// a time before the last message was sent.
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
	f.keepRecord(t)
	sample, err := f.driver.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.samples++
	sum, since, known := held(sample)
	if !known || since.Before(f.published) {
		s.unknown++
		return
	}
	before, after := f.before(since), f.progress(t)
	low, high := f.bounds(before, after)
	if sum < low || sum > high {
		t.Errorf("backlog and in flight are %d, want %d to %d; the record was %+v before and %+v after; the sample: %+v",
			sum, low, high, before, after, sample.Queues)
	}
	if sum < low+f.gap {
		s.gaps++
	}
}

// held is everything that a sample saw, and the time of its oldest count. It is
// not known if some queue is not.
func held(s *queue.Sample) (sum int64, since time.Time, known bool) {
	sum, since = s.Unattributed, s.At
	for _, depth := range s.Queues {
		if depth.Tasks().Err != nil {
			return 0, since, false
		}
		sum += depth.Backlog.N + depth.InFlight.N
		if at := depth.InFlight.At; at.Before(since) {
			since = at
		}
	}
	return sum, since, true
}
