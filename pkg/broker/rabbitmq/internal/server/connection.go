package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/frames"
)

const (
	// width is over how many channels questions are spread, which the cores of the
	// server then answer side by side. With 16, a read of 1,000 queues takes as long
	// (BenchmarkLookout, two cores).
	width = 4
	// worthwhile is for how many questions a further channel is taken.
	worthwhile = 16
	// maxChannels bounds the channels of a connection: those beyond width take the
	// place of such as wait for the answer of a queue that gives none.
	maxChannels = 32
)

// ErrMissing says that the broker has no queue of that name.
var ErrMissing = errors.New("the broker has no such queue")

// Connection is one connection to a server, to ask about queues. It is not safe for
// concurrent use.
type Connection struct {
	session
	split *frames.Splitter
	// closed gets why the connection has ended.
	closed chan *amqp.Error
	// lanes are those that were ever taken; the number of a channel is one more.
	lanes []*lane
	out   []byte
}

func newConnection(s session, split *frames.Splitter) *Connection {
	return &Connection{session: s, split: split, closed: s.link.NotifyClose(make(chan *amqp.Error, 1))}
}

// Answer is what the server says of one queue.
type Answer struct {
	// Ready is how many messages wait, Consumers how many may take them. Meaningless
	// if Err is set.
	Ready, Consumers int64
	// Err is ErrMissing, or why this queue cannot be asked about.
	Err error
}

// ClusterName is the name of the server's cluster, empty if it does not say.
func (c *Connection) ClusterName() string {
	name, _ := c.link.Properties["cluster_name"].(string)
	return name
}

// Ready asks for each queue how many of its messages wait, by passive declarations,
// which make nothing. The answers are in the order of the names. Doubts are those that
// the server may well not have, if that is known: it drops what is asked behind one, so
// that they are put last.
//
// What is wrong with a single queue is the error of its answer. Ready blocks until all
// are answered, or ctx is at its end: if the server has said anything by then, it is
// queues that are silent, and what has come is returned. An error is one of the
// connection, which is then of no more use.
func (c *Connection) Ready(ctx context.Context, names []string, doubts map[string]bool) ([]Answer, error) {
	if err := c.takeIn(&round{}, c.split.Take()); err != nil { // of rounds that are over
		return nil, err
	}
	r := newRound(names, doubts, c.isSilent)
	for r.left > 0 {
		if err := c.put(ctx, r); err != nil {
			return nil, err
		}
		switch err := c.hear(ctx, r); {
		case errors.Is(err, context.DeadlineExceeded) && r.heard:
			for _, l := range c.lanes {
				l.suspend(r)
			}
			return r.answers, nil
		case err != nil:
			return nil, err
		}
	}
	return r.answers, c.put(ctx, r) // it may be for the server to forget channels
}

// put sends what can be sent at once.
func (c *Connection) put(ctx context.Context, r *round) error {
	c.out = c.out[:0]
	for _, l := range c.lanes {
		c.out = l.confirm(c.out)
	}
	idle := c.idle(r)
	for i, l := range idle {
		left := len(idle) - i
		share := max(worthwhile, (len(r.sure)+left-1)/left)
		c.out = l.put(c.out, r, r.next(min(share, l.depth)))
	}
	if len(c.out) == 0 {
		return nil
	}
	return c.during(ctx, func() error {
		if _, err := c.socket.Write(c.out); err != nil {
			return c.ended(ctx, err)
		}
		return nil
	})
}

// ended is why the connection has ended, over which nothing can be sent.
func (c *Connection) ended(ctx context.Context, err error) error {
	select {
	case said := <-c.closed:
		if said != nil {
			return said
		}
	case <-ctx.Done():
	}
	return err
}

// idle are the lanes to put questions in. There are as many as are worth while, some
// of which may be busy.
func (c *Connection) idle(r *round) []*lane {
	wanted := min(width, max((len(r.sure)+worthwhile-1)/worthwhile, len(r.doubtful)))
	var idle []*lane
	usable := 0
	for _, l := range c.lanes {
		if l.overdue > 0 {
			continue
		}
		if usable++; len(l.asked) == 0 && len(idle) < wanted {
			idle = append(idle, l)
		}
	}
	for ; usable < width && len(idle) < wanted && len(c.lanes) < c.mostLanes(); usable++ {
		l := &lane{channel: uint16(len(c.lanes) + 1), depth: worthwhile}
		c.lanes, idle = append(c.lanes, l), append(idle, l)
	}
	return idle
}

// mostLanes is how many channels there may be.
func (c *Connection) mostLanes() int {
	if most := int(c.link.Config.ChannelMax); most > 0 { // what was agreed upon; 0: no limit
		return min(most, maxChannels)
	}
	return maxChannels
}

// isSilent is whether the server still owes an answer about a queue.
func (c *Connection) isSilent(name string) bool {
	for _, l := range c.lanes {
		if l.overdue > 0 && l.silent == name {
			return true
		}
	}
	return false
}

// hear waits for replies, and takes them in.
func (c *Connection) hear(ctx context.Context, r *round) error {
	select {
	case <-c.split.Came():
		return c.takeIn(r, c.split.Take())
	case err := <-c.closed:
		if err == nil {
			err = amqp.ErrClosed
		}
		return c.socket.cause(ctx, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Connection) takeIn(r *round, replies []frames.Reply) error {
	for _, reply := range replies {
		r.heard = true
		n := int(reply.Channel)
		if n > len(c.lanes) || !c.lanes[n-1].take(r, reply) {
			return fmt.Errorf("%w: it answers over channel %d what nobody has asked", frames.ErrMalformed, n)
		}
	}
	return nil
}

// refusal is why the server has closed a channel.
func refusal(reply frames.Reply) error {
	if isMissing(reply) {
		return ErrMissing
	}
	why := &amqp.Error{Code: int(reply.Code), Reason: reply.Text, Server: true}
	return fmt.Errorf("the broker refuses to say: %w", why)
}

// isMissing tells a queue that does not exist from one whose node is down, for
// which the code is the same (rabbit_amqqueue.erl, absent/2).
func isMissing(reply frames.Reply) bool {
	return reply.Code == amqp.NotFound && strings.Contains(reply.Text, "no queue '")
}
