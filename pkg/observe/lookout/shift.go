package lookout

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// readGap is the least time from the start of one read to the start of the next,
	// so that a burst of messages costs few reads.
	readGap = 5 * time.Millisecond
	// readTimeout bounds a read. It allows for thousands of queues on a broker that is
	// short of CPU.
	readTimeout = 5 * time.Second
	// retryPause is the pause before queues are read again that could not be read, and
	// whose writes may therefore not be told.
	retryPause = time.Second
	// emptyTime is how long a line is kept that nothing is watched on: targets that
	// wake and fall asleep again shall not cost a connection each time.
	emptyTime = 30 * time.Second
	// grantPause is when a line is opened anew on which the broker tells nothing for lack
	// of a right: it may have been granted.
	grantPause = 30 * time.Second
	// jitter spreads the reads of many replicas over time: each pause is up to this
	// share shorter or longer.
	jitter = 0.05
	// longTime stands for no time: something else will happen before.
	longTime = time.Hour
)

// shift is the watch on one line.
type shift struct {
	loop    *loop
	line    Line
	telling bool
	box     *mailbox
	set     set // what is watched
	// lacking holds those of the set of which nothing is known: with false the ones
	// never read on this line, with true those that could not be read.
	lacking map[string]bool
	// waiting holds those in which messages waited when they were last read.
	waiting    map[string]bool
	emptySince time.Time // meaningful while the set is empty
	readAt     time.Time // when the last read began
	allAt      time.Time // when the last read of the whole set began
	nextAt     time.Time // when the next one is due, where the broker does not tell
	renewAt    time.Time // when the line is to be opened anew; zero for never
}

func newShift(l *loop, line Line) *shift {
	s := &shift{
		loop: l, line: line, telling: line.Tells(), box: newMailbox(),
		lacking: map[string]bool{}, waiting: map[string]bool{}, emptySince: time.Now(),
	}
	if !s.telling && queue.IsMissingRight(line.Reason()) {
		s.renewAt = time.Now().Add(grantPause)
	}
	return s
}

// run watches until ctx is done, nothing has been watched for some time, the line is to
// be opened anew, or it is of no use any more, which the error then says. It closes the line.
func (s *shift) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	var hearing sync.WaitGroup
	if s.telling {
		hearing.Go(func() { stop(s.hear(ctx)) })
	}
	err := s.watch(ctx)
	s.loop.post.report(coverage{})
	stop(nil)
	if closing := s.line.Close(); closing != nil && err == nil {
		s.loop.log.Warn("Could not close a connection of a lookout", "error", closing)
	}
	hearing.Wait()
	return err
}

// hear takes in what the broker tells, until that is no longer possible.
func (s *shift) hear(ctx context.Context) error {
	for {
		names, err := s.line.Told(ctx)
		if err != nil {
			return err
		}
		s.box.put(names)
	}
}

// watch does what is due, again and again.
func (s *shift) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		s.adopt(s.loop.post.current())
		do, at := s.plan()
		if pause := time.Until(at); pause > 0 {
			s.wait(ctx, pause)
			continue
		}
		if do == nil {
			return nil
		}
		if err := s.read(ctx, do()); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// wait waits for a time, and no longer than until there may be something else to do.
func (s *shift) wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.loop.post.changed:
	case <-s.box.arrived:
	case <-timer.C:
	}
}

// plan returns which queues to read next, and when. Nil stands for leaving.
func (s *shift) plan() (func() []string, time.Time) {
	switch {
	case len(s.set.names) == 0:
		return nil, s.emptySince.Add(emptyTime)
	case !s.renewAt.IsZero() && !time.Now().Before(s.renewAt):
		return nil, s.renewAt
	case !s.box.isEmpty():
		return func() []string { return s.box.take(s.set.names) }, s.readAt.Add(readGap)
	case !s.telling:
		return func() []string { return s.set.names }, s.nextAt
	case len(s.lacking) > 0:
		return func() []string { return slices.Sorted(maps.Keys(s.lacking)) }, s.readAt.Add(s.affordable(retryPause, len(s.lacking)))
	}
	return nil, time.Now().Add(longTime)
}

// adopt takes over the set of queues to watch.
func (s *shift) adopt(next set) {
	if next.number == s.set.number {
		return
	}
	added, removed := without(next.names, s.set.names), without(s.set.names, next.names)
	s.set = next
	if len(next.names) == 0 {
		s.emptySince = time.Now()
	}
	if len(removed) > 0 {
		s.line.Forget(removed)
	}
	for _, name := range removed {
		delete(s.lacking, name)
		delete(s.waiting, name)
	}
	for _, name := range added {
		s.lacking[name] = false
	}
	if len(added) > 0 {
		s.box.put(added)
	}
	s.report()
}

// read reads these queues, and tells the sink of them.
func (s *shift) read(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	s.readAt = time.Now()
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	counts, err := s.line.Read(bounded, names)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil && len(counts) != len(names) {
		err = fmt.Errorf("broker %s: %d queues were read and %d counts returned", s.loop.spec.Ref, len(names), len(counts))
	}
	s.loop.recorder.Read(s.loop.spec.Ref, len(names), time.Since(s.readAt), err)
	if err != nil {
		return err
	}
	s.loop.succeed()
	if len(names) == len(s.set.names) {
		s.allAt = s.readAt
		s.nextAt = s.readAt.Add(jittered(s.affordable(s.loop.spec.Interval, len(names))))
	}
	s.tell(names, counts)
	return nil
}

// tell tells the sink what is news, and who asks what is covered.
func (s *shift) tell(names []string, counts []queue.Count) {
	news := map[string]queue.Count{}
	for i, name := range names {
		if s.isNews(name, counts[i]) {
			news[name] = counts[i]
		}
		s.note(name, counts[i])
	}
	s.report()
	if len(news) > 0 {
		s.loop.sink.Waiting(s.loop.spec.Ref, news)
	}
}

// isNews tells whether the sink is to be told of a count. Where the broker tells of
// writes, each is; else neither an empty queue that was empty before nor an unknown
// one that was unknown, since there are many, and often.
func (s *shift) isNews(name string, c queue.Count) bool {
	unknown, lacks := s.lacking[name]
	switch {
	case s.telling:
		return true
	case c.Err != nil:
		return !unknown
	}
	return c.N > 0 || lacks || s.waiting[name]
}

// note remembers a count as far as later ones are compared with it.
func (s *shift) note(name string, c queue.Count) {
	if c.Err != nil {
		s.lacking[name] = true
		delete(s.waiting, name)
		return
	}
	delete(s.lacking, name)
	if c.N > 0 {
		s.waiting[name] = true
	} else {
		delete(s.waiting, name)
	}
}

// report says whether the set is covered.
func (s *shift) report() {
	complete := len(s.lacking) == 0 && len(s.set.names) > 0
	s.loop.post.report(coverage{open: complete, number: s.set.number, telling: s.telling, at: s.allAt})
}

// affordable is the pause before so many queues are read, at least the one given.
func (s *shift) affordable(least time.Duration, queues int) time.Duration {
	if s.loop.spec.Budget <= 0 {
		return least
	}
	return max(least, time.Duration(queues)*time.Second/time.Duration(s.loop.spec.Budget))
}

// jittered is d, up to the jitter's share shorter or longer.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*jitter*float64(d))
}
