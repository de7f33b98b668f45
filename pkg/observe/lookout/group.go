package lookout

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/internal/perbroker"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// usualInterval is the time from one read to the next where none is given: a message
// then waits for half of it on average until it is seen.
const usualInterval = 50 * time.Millisecond

// Recorder is told what the lookouts do. It is called by one goroutine per broker,
// and must not block.
type Recorder interface {
	// Lookout is told of each line that is opened whether the broker tells of writes
	// on it, and if not, why.
	Lookout(ref queue.BrokerRef, telling bool, reason error)
	// Read is told of each read how many queues it was for, for how long it took and
	// how it ended; and, with no queues, of each line that could not be opened.
	Read(ref queue.BrokerRef, queues int, took time.Duration, err error)
	// Forget is told that a broker is watched no more, or from now on anew.
	Forget(ref queue.BrokerRef)
}

// Spec says how queues of one broker are watched.
type Spec struct {
	Ref queue.BrokerRef
	// Interval is the time from the start of one read to the start of the next, where
	// the broker does not tell of writes; 50 ms where it is not set.
	Interval time.Duration
	// Budget is how many queues may be read in a second, where the broker does not
	// tell: many queues are read less often. Zero stands for any number.
	Budget int
	// Fingerprint changes whenever anything about the broker does: the loop is then
	// replaced by a new one.
	Fingerprint string
	// Open makes the source of lines. It does no I/O. If it fails, nothing of the
	// broker is watched until its fingerprint changes.
	Open func() (Source, error)
}

// Group watches queues of each broker that it was last told of. Its methods are safe
// for concurrent use.
type Group struct {
	sink     Sink
	recorder Recorder
	log      *slog.Logger
	applying sync.Mutex
	loops    perbroker.Group[*loop]

	mu    sync.Mutex
	posts map[queue.BrokerRef]*post
}

// NewGroup makes a group without brokers. What is read goes to the sink.
func NewGroup(sink Sink, recorder Recorder, log *slog.Logger) *Group {
	return &Group{sink: sink, recorder: recorder, log: log, posts: map[queue.BrokerRef]*post{}}
}

// Apply makes the group watch queues of exactly these brokers: loops of brokers that
// are gone or changed end, loops of new or changed ones begin, and all others go on
// undisturbed. A broker that has changed keeps its queues, one that is gone loses
// them. It blocks until the ended loops have returned. Loops run until ctx is done at
// the latest; see Wait.
func (g *Group) Apply(ctx context.Context, specs []Spec) {
	g.applying.Lock()
	defer g.applying.Unlock()
	loops := make([]*loop, 0, len(specs))
	wanted := map[queue.BrokerRef]bool{}
	for _, spec := range specs {
		wanted[spec.Ref] = true
		if spec.Interval <= 0 {
			spec.Interval = usualInterval
		}
		loops = append(loops, &loop{
			spec: spec, sink: g.sink, recorder: g.recorder, post: g.post(spec.Ref),
			log: g.log.With("namespace", spec.Ref.Namespace, "broker", spec.Ref.Name),
		})
	}
	g.loops.Apply(ctx, loops)
	g.dropExcept(wanted)
}

// Wait blocks until every loop has returned, which needs the context given to Apply
// to be done.
func (g *Group) Wait() { g.loops.Wait() }

// Watch makes these the queues of a broker that are watched, named as the broker
// names them. It does not block, and costs little where nothing has changed, least if
// the order is the same as before. Of a broker that Apply does not know the queues
// are kept until the next Apply.
func (g *Group) Watch(ref queue.BrokerRef, queues []string) { g.post(ref).watch(queues) }

// Covers tells whether a message that arrives in any of the broker's watched queues
// is noticed at once: a line is open on which all of them have been read, where the
// broker does not tell of writes within the last second. It does not block.
func (g *Group) Covers(ref queue.BrokerRef) bool {
	g.mu.Lock()
	p := g.posts[ref]
	g.mu.Unlock()
	return p != nil && p.isCovered(time.Now())
}

// Untold says why the broker does not tell of messages, as of the line that was opened
// last; nil if it does, or none was opened yet. It does not block.
func (g *Group) Untold(ref queue.BrokerRef) error {
	g.mu.Lock()
	p := g.posts[ref]
	g.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.reason()
}

// post returns that of a broker, a new one where there is none.
func (g *Group) post(ref queue.BrokerRef) *post {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.posts[ref]
	if p == nil {
		p = newPost()
		g.posts[ref] = p
	}
	return p
}

func (g *Group) dropExcept(wanted map[queue.BrokerRef]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.posts, func(ref queue.BrokerRef, _ *post) bool { return !wanted[ref] })
}
