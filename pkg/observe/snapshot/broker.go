package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// ErrUnknownQueue says that neither the configuration nor the broker knows the
// queue: most likely its name is misspelt.
var ErrUnknownQueue = errors.New("unknown queue")

// Broker is the immutable view of one broker at one moment.
type Broker struct {
	Declaration
	// Failure says why the latest attempt to sample failed, nil if it did not.
	Failure error
	// FailedAt is when Failure happened.
	FailedAt time.Time

	sample  *queue.Sample // the latest good one, nil before the first
	arrived arrivals      // backlogs that were read since the sample
	labels  *labelIndex
}

func newBroker(d Declaration) *Broker {
	return &Broker{Declaration: d, labels: newLabelIndex(d.Queues, maps.Keys(d.Queues))}
}

// Sampled tells whether the broker has ever been sampled since its declaration.
func (b *Broker) Sampled() bool { return b.sample != nil }

// SampledAt is when the latest good sample was taken, the zero time if none was.
func (b *Broker) SampledAt() time.Time {
	if b.sample == nil {
		return time.Time{}
	}
	return b.sample.At
}

// Unattributed is the number of messages that workers held at the latest good
// sample and that belong to no queue that could be told.
func (b *Broker) Unattributed() int64 {
	if b.sample == nil {
		return 0
	}
	return b.sample.Unattributed
}

// Delayed is how many messages the broker itself held back until their time at
// the latest good sample, unknown if that is not told or too old at now.
func (b *Broker) Delayed(now time.Time) queue.Count {
	if b.sample == nil || b.sample.Delayed == nil {
		return queue.Unknown(fmt.Errorf("broker %s does not tell of delayed messages", b.Ref))
	}
	if age := now.Sub(b.sample.Delayed.At); age > b.MaxAge {
		return queue.Unknown(b.stale(age))
	}
	return *b.sample.Delayed
}

// Degraded says what of the broker the latest good sample could not read, nil if
// it was read as a whole.
func (b *Broker) Degraded() error {
	if b.sample == nil {
		return nil
	}
	return b.sample.Degraded
}

// OldestCounts returns since when the oldest backlog and the oldest in-flight
// count of the latest good sample hold; the zero time for a kind of count of
// which none is known.
func (b *Broker) OldestCounts() (backlog, inFlight time.Time) {
	if b.sample == nil {
		return backlog, inFlight
	}
	for _, depth := range b.sample.Queues {
		backlog, inFlight = older(backlog, depth.Backlog), older(inFlight, depth.InFlight)
	}
	return backlog, inFlight
}

// older is the earlier of a time, which may not be set, and that of a count.
func older(at time.Time, c queue.Count) time.Time {
	if c.Err == nil && (at.IsZero() || c.At.Before(at)) {
		return c.At
	}
	return at
}

// Incomplete returns nil if the list of queues is all that there is, so that a
// label missing from it is a wrong name and not one that is yet to be found;
// else it says why not.
func (b *Broker) Incomplete() error {
	switch {
	case b.Queues != nil:
		return nil
	case b.sample == nil:
		return b.notSampled()
	case b.sample.DiscoveryPending:
		return fmt.Errorf("broker %s: the search for its queues has not ended yet", b.Ref)
	}
	return nil
}

// Labels returns the label of every known queue, sorted. Before the first
// sample these are the declared ones. The slice must not be changed.
func (b *Broker) Labels() []string { return b.labels.sorted }

// Has tells whether a queue of that label is known.
func (b *Broker) Has(label string) bool { return len(b.labels.names[label]) > 0 }

// Name returns the broker's own name of the queue of that label. The error is as that of
// Lookup where no queue, or more than one, has it.
func (b *Broker) Name(label string) (string, error) {
	name, err := b.labels.name(label)
	if err != nil {
		return "", fmt.Errorf("broker %s: %w", b.Ref, err)
	}
	return name, nil
}

// Lookup returns what the queue of that label holds, with each count unknown
// that is older than MaxAge at now; its backlog may be younger than the sample, see
// Store.PutBacklogs. The error says why nothing is known of the queue:
// ErrUnknownQueue, not sampled yet, or a label that several queues share.
func (b *Broker) Lookup(label string, now time.Time) (queue.Depth, error) {
	name, err := b.labels.name(label)
	if err != nil {
		return queue.Depth{}, errors.Join(fmt.Errorf("broker %s: %w", b.Ref, err), b.Incomplete())
	}
	if b.sample == nil {
		return queue.Depth{}, b.notSampled()
	}
	depth, ok := b.sample.Queues[name]
	if !ok {
		return queue.Depth{}, fmt.Errorf("broker %s: the latest sample lacks queue %s", b.Ref, label)
	}
	backlog := b.fresh(label, depth.Backlog, now)
	if a, ok := b.arrived.of(name); ok {
		backlog = a.over(backlog, now.Add(-b.MaxAge))
	}
	return queue.Depth{
		Backlog:   backlog,
		InFlight:  b.fresh(label, depth.InFlight, now),
		Scheduled: b.fresh(label, depth.Scheduled, now),
		Oldest:    b.fresh(label, depth.Oldest, now),
		Wait:      b.fresh(label, depth.Wait, now),
		Work:      b.fresh(label, depth.Work, now),
	}, nil
}

// fresh makes a count unknown that is too old or whose reason lacks the subject.
func (b *Broker) fresh(label string, c queue.Count, now time.Time) queue.Count {
	if c.Err != nil {
		return queue.Unknown(fmt.Errorf("broker %s: queue %s: %w", b.Ref, label, c.Err))
	}
	if age := now.Sub(c.At); age > b.MaxAge {
		return queue.Unknown(b.stale(age))
	}
	return c
}

func (b *Broker) stale(age time.Duration) error {
	const text = "broker %s: the last good sample is %s old, which is over the maximum age of %s"
	if b.Failure == nil {
		return fmt.Errorf(text, b.Ref, age.Round(time.Millisecond), b.MaxAge)
	}
	return fmt.Errorf(text+": %w", b.Ref, age.Round(time.Millisecond), b.MaxAge, b.Failure)
}

func (b *Broker) notSampled() error {
	if b.Failure == nil {
		return fmt.Errorf("broker %s has not been sampled yet", b.Ref)
	}
	return fmt.Errorf("broker %s has not been sampled yet: %w", b.Ref, b.Failure)
}

func (b *Broker) withSample(sample *queue.Sample) *Broker {
	labels := b.labels
	if !labels.covers(sample.Queues) {
		labels = newLabelIndex(b.Queues, maps.Keys(sample.Queues))
	}
	return &Broker{Declaration: b.Declaration, sample: sample, arrived: b.arrived.after(sample), labels: labels}
}

func (b *Broker) withFailure(err error, at time.Time) *Broker {
	next := *b
	next.Failure, next.FailedAt = err, at
	return &next
}

// labelIndex finds a queue by its label. It is immutable and kept from sample
// to sample as long as the set of queues stays the same.
type labelIndex struct {
	names  map[string][]string // label → names, more than one where they collide
	queues int
	sorted []string
}

func newLabelIndex(aliases map[string]string, names func(yield func(string) bool)) *labelIndex {
	x := &labelIndex{names: map[string][]string{}}
	for name := range names {
		label := aliases[name]
		if label == "" {
			label = queue.Label(name)
		}
		x.names[label] = append(x.names[label], name)
		x.queues++
	}
	x.sorted = slices.Sorted(maps.Keys(x.names))
	return x
}

// covers tells whether the index was made of exactly these queues.
func (x *labelIndex) covers(queues map[string]queue.Depth) bool {
	if len(queues) != x.queues {
		return false
	}
	for _, names := range x.names {
		for _, name := range names {
			if _, ok := queues[name]; !ok {
				return false
			}
		}
	}
	return true
}

func (x *labelIndex) name(label string) (string, error) {
	names := x.names[label]
	switch len(names) {
	case 0:
		return "", fmt.Errorf("%w %q", ErrUnknownQueue, label)
	case 1:
		return names[0], nil
	}
	quoted := make([]string, 0, len(names))
	for _, name := range slices.Sorted(slices.Values(names)) {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	return "", fmt.Errorf("the label %q stands for %d queues (%s): give each an alias of its own in spec.queues",
		label, len(names), strings.Join(quoted, ", "))
}
