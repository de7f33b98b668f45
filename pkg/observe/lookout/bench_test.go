package lookout_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// BenchmarkWatch is what it costs who says which 10,000 queues are watched.
func BenchmarkWatch(b *testing.B) {
	names := manyNames(10_000)
	shuffled := slices.Clone(names)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	for _, c := range []struct {
		rule string
		sets [2][]string
	}{
		{"the same", [2][]string{names, slices.Clone(names)}},
		{"the same in another order", [2][]string{names, shuffled}},
		{"one more and one less", [2][]string{names, names[1:]}},
	} {
		b.Run(c.rule, func(b *testing.B) {
			group := lookout.NewGroup(&ledger{}, &ledger{}, slog.New(slog.DiscardHandler))
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				group.Watch(ref, c.sets[n%2])
			}
		})
	}
}

// BenchmarkPoll is what it costs beside the reading itself to read 10,000 empty
// queues once, where the broker does not tell of writes.
func BenchmarkPoll(b *testing.B) {
	line := &empty{reads: make(chan struct{}), counts: make([]queue.Count, 10_000)}
	ctx, cancel := context.WithCancel(b.Context())
	group := lookout.NewGroup(&ledger{}, &ledger{}, slog.New(slog.DiscardHandler))
	group.Watch(ref, manyNames(len(line.counts)))
	group.Apply(ctx, []lookout.Spec{{
		Ref: ref, Interval: time.Nanosecond,
		Open: func() (lookout.Source, error) { return line, nil },
	}})
	<-line.reads
	b.ReportAllocs()
	for b.Loop() {
		<-line.reads
	}
	cancel()
	group.Wait()
}

// empty is a broker and a line to it, whose queues are empty and which costs nothing.
type empty struct {
	reads  chan struct{}
	counts []queue.Count
}

func (e *empty) Open(context.Context) (lookout.Line, error) { return e, nil }
func (e *empty) Tells() bool                                { return false }
func (e *empty) Reason() error                              { return errors.New("it is empty") }
func (e *empty) Forget([]string)                            {}
func (e *empty) Told(context.Context) ([]string, error)     { return nil, nil }
func (e *empty) Close() error                               { return nil }

func (e *empty) Read(ctx context.Context, _ []string) ([]queue.Count, error) {
	select {
	case e.reads <- struct{}{}:
	case <-ctx.Done():
	}
	return e.counts, nil
}
