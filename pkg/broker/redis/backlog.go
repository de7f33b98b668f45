package redis

import (
	"context"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// backlogReader reads the length of one queue. Its commands are made once and
// used for every sample: with 10,000 queues that saves most of the work.
type backlogReader struct {
	name string
	// bare is the LLEN of the list of priority 0.
	bare *goredis.IntCmd
	// probe asks whether any list of another priority exists; nil once one did.
	probe *goredis.IntCmd
	// levels are the LLEN of the lists of priority 1 to 9; nil until then.
	levels []*goredis.IntCmd
	next   *nextReader
	// refused is why the server does not let us read this queue. It holds for
	// one sample, since permissions can change.
	refused error
	// unread is true while a command was made that no exchange has run yet:
	// its zero value is no count.
	unread bool
}

func newBacklogReader(ctx context.Context, keys celery.Keys, name string, right *lookRight) *backlogReader {
	exists := []any{"exists"}
	for priority := 1; priority <= celery.MaxPriority; priority++ {
		exists = append(exists, keys.Queue(name, priority))
	}
	r := &backlogReader{
		name:   name,
		bare:   goredis.NewIntCmd(ctx, "llen", keys.Queue(name, 0)),
		probe:  goredis.NewIntCmd(ctx, exists...),
		next:   newNextReader(right),
		unread: true,
	}
	r.next.follow(ctx, r.bare)
	return r
}

// append adds this queue's commands of one exchange.
func (r *backlogReader) append(commands []goredis.Cmder) []goredis.Cmder {
	if r.refused != nil {
		return commands
	}
	commands = append(commands, r.bare)
	if r.probe != nil {
		commands = append(commands, r.probe)
	}
	for _, level := range r.levels {
		commands = append(commands, level)
	}
	return commands
}

// send is append for commands that are run at once, with those for the next message.
func (r *backlogReader) send(commands []goredis.Cmder, now time.Time) []goredis.Cmder {
	if r.refused == nil {
		commands = r.next.send(commands, now) // by the lengths of the exchange before
	}
	r.unread = false
	return r.append(commands)
}

// noteRefusal is called after the server refused a transaction.
func (r *backlogReader) noteRefusal(now time.Time) {
	r.next.noteRefusal(now)
	for _, c := range r.append(nil) {
		if server.IsRefusal(c.Err()) {
			r.refused = c.Err()
		}
	}
}

// learnPriorities switches to reading all lists if the probe found one. It
// reports whether it did: the length is then short and must be read again.
func (r *backlogReader) learnPriorities(ctx context.Context) bool {
	if r.refused != nil || r.probe == nil || r.probe.Val() == 0 {
		return false
	}
	for _, key := range r.probe.Args()[1:] {
		level := goredis.NewIntCmd(ctx, "llen", key)
		r.levels = append(r.levels, level)
		r.next.follow(ctx, level)
	}
	r.probe, r.unread = nil, true
	return true
}

// count is the length of all lists. Only this queue is unknown if one of them
// is no list, or may not be read.
func (r *backlogReader) count(at time.Time) queue.Count {
	if r.refused != nil {
		return queue.Unknown(fmt.Errorf("queue %q: %w: %s", r.name, r.refused, server.Hint(r.refused, server.SampleRights)))
	}
	if r.unread {
		return queue.Unknown(fmt.Errorf("queue %q was found during this sample and is read with the next", r.name))
	}
	if r.probe != nil && r.probe.Err() != nil {
		return queue.Unknown(fmt.Errorf("queue %q: look for its priorities: %w", r.name, r.probe.Err()))
	}
	n := r.bare.Val()
	err, failed := r.bare.Err(), r.bare
	for _, level := range r.levels {
		n += level.Val()
		if level.Err() != nil {
			err, failed = level.Err(), level
		}
	}
	if err != nil {
		return queue.Unknown(fmt.Errorf("queue %q: length of key %q: %w", r.name, failed.Args()[1], err))
	}
	return queue.Known(n, at)
}
