package tracking

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// exchangeSize is how many queues one exchange reads at the most, which takes some
// ten milliseconds.
const exchangeSize = 5000

// Read reads how many messages wait in each of these queues, over all priorities, and
// returns that in their order. A queue that cannot be read is unknown. From then on
// the next write to each is told, if writes are told at all.
//
// It makes one exchange for all, or several for thousands of queues, and one more
// where some have messages with priorities. Each blocks for the time-out at most.
func (l *Line) Read(ctx context.Context, queues []string) ([]queue.Count, error) {
	l.notices.await(queues)
	counts := make([]queue.Count, 0, len(queues))
	for some := range slices.Chunk(queues, exchangeSize) {
		lengths := make([]*length, len(some))
		for i, name := range some {
			lengths[i] = newLength(ctx, l.keys, name)
		}
		at := time.Now()
		if err := l.measure(ctx, lengths); err != nil {
			return nil, l.purpose.Explain(l.address, err)
		}
		for _, n := range lengths {
			counts = append(counts, n.count(at))
		}
	}
	return counts, nil
}

// measure runs the commands: first those of all queues, then those of priorities.
func (l *Line) measure(ctx context.Context, lengths []*length) error {
	commands := make([]goredis.Cmder, 0, 2*len(lengths)+1)
	for _, n := range lengths {
		commands = append(commands, n.bare, n.probe)
	}
	if err := l.exchange(ctx, commands); err != nil {
		return err
	}
	commands = nil
	for _, n := range lengths {
		commands = append(commands, n.followProbe(ctx)...)
	}
	if len(commands) == 0 {
		return nil
	}
	return l.exchange(ctx, commands)
}

// exchange runs commands, each of which may fail if that says something of its queue
// alone.
func (l *Line) exchange(ctx context.Context, commands []goredis.Cmder) error {
	if err := l.tracking.Exec(ctx, commands); err != nil {
		return err
	}
	for _, c := range commands {
		if err := c.Err(); err != nil && !server.IsRefusal(err) && !strings.HasPrefix(err.Error(), "WRONGTYPE") {
			return err
		}
	}
	return nil
}

// length is how one queue is read: with the length of its list of priority 0, and with
// one question whether there is any other list. The server remembers all of these keys.
type length struct {
	name   string
	bare   *goredis.IntCmd
	probe  *goredis.IntCmd
	levels []*goredis.IntCmd // of priorities from 1, if there are any
}

func newLength(ctx context.Context, keys celery.Keys, name string) *length {
	exists := make([]any, 1, celery.MaxPriority+1)
	exists[0] = "exists"
	for priority := 1; priority <= celery.MaxPriority; priority++ {
		exists = append(exists, keys.Queue(name, priority))
	}
	return &length{
		name: name, bare: goredis.NewIntCmd(ctx, "llen", keys.Queue(name, 0)), probe: goredis.NewIntCmd(ctx, exists...),
	}
}

// followProbe makes the commands that are left to do when the probe is answered.
func (n *length) followProbe(ctx context.Context) []goredis.Cmder {
	if n.probe.Err() != nil || n.probe.Val() == 0 {
		return nil
	}
	var commands []goredis.Cmder
	for _, key := range n.probe.Args()[1:] {
		level := goredis.NewIntCmd(ctx, "llen", key)
		n.levels = append(n.levels, level)
		commands = append(commands, level)
	}
	return commands
}

// count is the sum of what was read at a time.
func (n *length) count(at time.Time) queue.Count {
	if err := n.probe.Err(); err != nil {
		return n.unknown("look for its priorities", err)
	}
	sum := int64(0)
	for _, c := range append(n.levels, n.bare) {
		if err := c.Err(); err != nil {
			return n.unknown(fmt.Sprintf("length of key %q", c.Args()[1]), err)
		}
		sum += c.Val()
	}
	return queue.Known(sum, at)
}

func (n *length) unknown(doing string, err error) queue.Count {
	reason := fmt.Errorf("queue %q: %s: %w", n.name, doing, err)
	if hint := server.Hint(err, server.SampleRights); hint != "" {
		reason = fmt.Errorf("%w: %s", reason, hint)
	}
	return queue.Unknown(reason)
}
