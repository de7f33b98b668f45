package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// TrackingRights are what a user of Redis needs to be told of writes, beside those to
// read the keys, in the words of ACL SETUSER.
const TrackingRights = "+client|tracking +subscribe +ping &" + invalidations

// invalidations is the channel in which a server tells of writes
// (https://redis.io/docs/latest/develop/reference/client-side-caching/).
const invalidations = "__redis__:invalidate"

var (
	// errUnwanted says that nobody wants to be told.
	errUnwanted = errors.New("switched off by lookout.tracking: false")
	// errNoNumber says that a server knows HELLO, but not as Redis does.
	errNoNumber = errors.New("the server does not number its connections")
)

// connections is how many a Tracking has: one reads, one hears.
const connections = 2

// Tracking reads keys over one connection, and hears over another when one of them is
// written, whatever by, for the first time since it was read. Both must lead to the
// same server. With either connection the server forgets what was read, so that none
// is ever made anew: with one of them, all is lost. It is safe for concurrent use.
type Tracking struct {
	client  *goredis.Client // has these connections alone
	conn    *goredis.Conn   // reads
	sub     *Subscription   // hears
	hearer  int64           // the server's number of the connection that hears
	untold  error           // why the server tells nothing, nil if it does
	timeout time.Duration

	exchanging sync.Mutex
	role       RoleCheck
}

// Track connects. It blocks for the time-out of Settings at most. That the server does
// not tell of writes is no error; see Untold.
func (e Endpoint) Track(ctx context.Context) (*Tracking, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	t := &Tracking{timeout: e.timeout}
	if e.untold {
		t.untold = errUnwanted
	}
	t.client = goredis.NewClient(t.options(e))
	t.conn = t.client.Conn()
	if err := t.connect(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// options are those of the endpoint, but that there are as many connections as it takes
// and then no more, so that the client library cannot replace one by itself.
func (t *Tracking) options(e Endpoint) *goredis.Options {
	options := *e.client.Options()
	options.MaxRetries = -1 // where the library has made a 0 of that, which is another default
	dial, greet := options.Dialer, options.OnConnect
	var dialled atomic.Int64
	options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dialled.Add(1) > connections {
			return nil, errReconnected
		}
		return dial(ctx, network, address)
	}
	options.OnConnect = func(ctx context.Context, conn *goredis.Conn) error {
		if err := greet(ctx, conn); err != nil {
			return err
		}
		return t.number(ctx, conn)
	}
	return &options
}

// number notes the number of the first connection. HELLO tells it, which takes no
// right, unlike CLIENT ID.
func (t *Tracking) number(ctx context.Context, conn *goredis.Conn) error {
	if t.hearer != 0 {
		return nil
	}
	hello, err := conn.Hello(ctx, 2, "", "", "").Result()
	if err != nil && !isUnable(err) {
		return err
	}
	number, ok := hello["id"].(int64)
	if !ok {
		number, t.untold = -1, cmp.Or(t.untold, err, errNoNumber)
	}
	t.hearer = number
	return nil
}

// connect makes the connections.
func (t *Tracking) connect(ctx context.Context) error {
	if t.untold == nil {
		if err := t.track(ctx); err != nil && !isUnable(err) {
			return err
		}
	}
	return t.look(ctx)
}

// track makes both connections, the one that hears first: else something might be told
// to nobody.
func (t *Tracking) track(ctx context.Context) error {
	t.sub = &Subscription{pubsub: t.client.Subscribe(ctx), began: time.Now()} // no channel, no I/O yet
	err := t.sub.confirm(ctx, t.timeout, t.sub.pubsub.Subscribe, []string{invalidations})
	if err == nil {
		err = t.untold
	}
	if err == nil {
		err = t.redirect(ctx)
	}
	if err == nil {
		return nil
	}
	t.untold = err
	return errors.Join(err, t.sub.Close())
}

func (t *Tracking) redirect(ctx context.Context) error {
	return t.conn.Process(ctx, goredis.NewStatusCmd(ctx, "client", "tracking", "on", "redirect", t.hearer))
}

// isUnable reports whether a server is well and answers, but does not do what it was
// asked for: it has no such command, or this user may not use it.
func isUnable(err error) bool {
	if errors.Is(err, errUnsubscribed) || errors.Is(err, errNoNumber) {
		return true
	}
	if !isReply(err) {
		return false
	}
	for _, state := range []string{"LOADING", "BUSY", "MASTERDOWN", "NOAUTH", "WRONGPASS", "ERR max number of clients"} {
		if strings.HasPrefix(err.Error(), state) {
			return false
		}
	}
	return true
}

// Untold says why the server does not tell of writes; nil if it does.
func (t *Tracking) Untold() error {
	if t.untold == nil || IsRefusal(t.untold) || errors.Is(t.untold, errUnwanted) {
		return t.untold
	}
	return fmt.Errorf("%w: to tell of writes takes Redis 6 or later, and no proxy before it that does not know CLIENT TRACKING", t.untold)
}

// Exec runs the commands in one exchange over the connection that reads; see
// Endpoint.Exec. It blocks for the time-out of Settings at most, or twice that. An
// error says that the Tracking is of no use any more: the connection is lost, or the
// server is a replica out of step.
func (t *Tracking) Exec(ctx context.Context, commands []goredis.Cmder) error {
	t.exchanging.Lock()
	defer t.exchanging.Unlock()
	return t.exchange(ctx, commands)
}

func (t *Tracking) exchange(ctx context.Context, commands []goredis.Cmder) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if err := exec(ctx, t.conn.Pipeline(), t.role.Send(ctx, commands)); err != nil {
		return err
	}
	return t.judge()
}

// judge looks at what the server said of its role: it may be unable to, but not unwell.
func (t *Tracking) judge() error {
	if t.role.role == nil || t.role.role.Err() == nil {
		return t.role.Verdict()
	}
	if err := t.role.role.Err(); !isUnable(err) {
		return err
	}
	t.role.NoteRefusal()
	return nil
}

// look asks for the role alone; where that is refused, any answer will do.
func (t *Tracking) look(ctx context.Context) error {
	t.exchanging.Lock()
	defer t.exchanging.Unlock()
	var ping []goredis.Cmder
	if t.role.mute {
		ping = append(ping, goredis.NewStatusCmd(ctx, "ping"))
	}
	return t.exchange(ctx, ping)
}

// Receive hands over keys that were written, as the server names them, one message
// after the other; nil stands for all. It does so until the context is done or one of
// the connections is lost, also if it merely goes silent, and never returns nil: the
// context's error, or what is wrong. It is called once, and only if the server tells.
func (t *Tracking) Receive(ctx context.Context, heard func(keys []string)) error {
	ctx, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { stop(t.watch(ctx)) })
	err := t.sub.hear(ctx, func(m *goredis.Message) { heard(m.PayloadSlice) })
	stop(err)
	watch.Wait()
	return err
}

// watch looks whether the connection that reads is still there, while nobody reads.
func (t *Tracking) watch(ctx context.Context) error {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		err := t.look(context.WithoutCancel(ctx))
		if errors.Is(err, errLostPrimary) {
			return err
		}
		if err != nil {
			return fmt.Errorf("the connection that reads is lost (%w): did the server restart, or is it overloaded or paused?", err)
		}
	}
}

// isNullMessage recognizes what the client library makes of a message without a
// payload, by which a server says that all keys were written (FLUSHALL). If it did
// not, the subscription would be given up, which is dearer but not wrong.
func isNullMessage(err error) bool {
	return err != nil && strings.HasSuffix(err.Error(), "unsupported pubsub message payload: <nil>")
}

// Close closes the connections, which ends Receive.
func (t *Tracking) Close() error {
	var errs []error
	if t.sub != nil {
		errs = append(errs, t.sub.Close())
	}
	return errors.Join(append(errs, t.client.Close())...)
}
