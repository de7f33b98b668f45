package mailbox

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

const (
	// pollInterval is from one look into the list to the next. A worker that has
	// nothing else to do answers within a few of them.
	pollInterval = 20 * time.Millisecond
	// batch is how many replies one exchange reads. Each may be large: Redis does
	// not tell the length of a list's element.
	batch = 16
	// keepSilent is how long the list stays for those who have not answered: as
	// long as Celery's default visibility time-out, within which tasks are to
	// finish. The solo pool answers only then, and workers answer a question that
	// has expired as well.
	keepSilent = time.Hour
	// keepAnswered is how long it stays if all have answered: there may be two
	// workers of one name.
	keepAnswered = 5 * time.Second
	// stays is the element that keeps the list, and its expiry, in being. It is no
	// reply.
	stays = "celery-hpa"
)

// Mailbox is a list for replies. It is not safe for concurrent use.
type Mailbox struct {
	// Name is what workers are told: kombu puts the global prefix before it.
	Name string
	key  string
	// silentUntil is until when somebody may answer who has not.
	silentUntil time.Time
}

// New makes a mailbox. Each process must have one of its own.
func New(keys celery.Keys, id string) *Mailbox {
	name := celery.RepliesPrefix + id
	return &Mailbox{Name: name, key: keys.Queue(name, 0)}
}

// Publish empties the list and publishes a question in every channel. It returns
// how many workers hear it, those included that it is not for. If none does,
// nothing is left in Redis.
func (m *Mailbox) Publish(ctx context.Context, e server.Endpoint, channels []string, question []byte) (int64, error) {
	commands := []goredis.Cmder{
		goredis.NewIntCmd(ctx, "del", m.key),
		goredis.NewIntCmd(ctx, "rpush", m.key, stays),
		m.expire(ctx, keepSilent),
	}
	for _, channel := range channels {
		commands = append(commands, goredis.NewIntCmd(ctx, "publish", channel, question))
	}
	if err := run(ctx, e, true, commands); err != nil {
		return 0, err
	}
	var listeners int64
	for _, c := range commands[3:] {
		listeners += c.(*goredis.IntCmd).Val()
	}
	if listeners > 0 {
		return listeners, nil
	}
	return 0, run(ctx, e, false, []goredis.Cmder{goredis.NewIntCmd(ctx, "del", m.key)})
}

func (m *Mailbox) expire(ctx context.Context, after time.Duration) goredis.Cmder {
	return goredis.NewBoolCmd(ctx, "expire", m.key, int64(after.Seconds()))
}

// Collect reads replies until all nodes have answered the question of this ticket,
// the context is done, or so many replies have come that somebody else must be
// writing. It drops what is no such reply, and tells whether all have answered.
func (m *Mailbox) Collect(ctx context.Context, e server.Endpoint, ticket string, nodes []string) (replies []monitor.ControlReply, complete bool, err error) {
	a := newAnswers(ticket, nodes)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if err := m.read(ctx, e, a); err != nil && !isOver(ctx) {
			return a.replies, false, err
		}
		if a.isComplete() || a.budget <= 0 {
			return a.replies, a.isComplete(), nil
		}
		select {
		case <-ctx.Done():
			return a.replies, false, nil
		case <-ticker.C:
		}
	}
}

// isOver reports whether a context is done, or will be in this moment: a connection
// may notice its deadline first.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// read reads all that has come. The list grows at the beginning alone, so that the
// element at its end is not among what is taken.
func (m *Mailbox) read(ctx context.Context, e server.Endpoint, a *answers) error {
	for a.budget > 0 {
		length := goredis.NewIntCmd(ctx, "llen", m.key)
		if err := run(ctx, e, false, []goredis.Cmder{length}); err != nil {
			return err
		}
		n := min(length.Val()-1, batch, int64(a.budget))
		if n <= 0 {
			return nil
		}
		if err := m.take(ctx, e, a, n); err != nil {
			return err
		}
	}
	return nil
}

// take takes replies off the list.
func (m *Mailbox) take(ctx context.Context, e server.Endpoint, a *answers, n int64) error {
	commands := make([]goredis.Cmder, n)
	for i := range commands {
		commands[i] = goredis.NewStringCmd(ctx, "lpop", m.key)
	}
	err := run(ctx, e, false, commands)
	for _, c := range commands {
		if c.Err() == nil {
			a.add([]byte(c.(*goredis.StringCmd).Val()))
		}
	}
	return err
}

// Settle lets the list expire soon if all have answered. Where it cannot, the list
// expires later.
func (m *Mailbox) Settle(ctx context.Context, e server.Endpoint, complete bool, now time.Time) error {
	if !complete {
		m.silentUntil = now.Add(keepSilent)
	}
	if now.Before(m.silentUntil) {
		return nil
	}
	return run(ctx, e, false, []goredis.Cmder{m.expire(ctx, keepAnswered)})
}

// run makes one exchange. Its error is the first of the commands', if any, but for
// an element that is not there.
func run(ctx context.Context, e server.Endpoint, atomic bool, commands []goredis.Cmder) error {
	err := e.Exec(ctx, atomic, commands)
	if server.IsAbort(err) {
		return server.FirstCause(commands, err)
	}
	if err != nil {
		return err
	}
	for _, c := range commands {
		if err := c.Err(); err != nil && err != goredis.Nil { //nolint:errorlint // go-redis returns it bare
			return err
		}
	}
	return nil
}
