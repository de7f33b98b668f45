package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

const (
	// maxChannels bounds the channels of a connection, over which the questions
	// of a sample are spread: each has one question under way. With half as many,
	// a sample of 1,000 queues takes a third longer; with twice as many, as long
	// (BenchmarkSample, server on the same machine).
	maxChannels = 16
	// maxName is the longest name of a queue, in bytes (AMQP 0-9-1, shortstr).
	maxName = 255
)

// ErrMissing says that the broker has no queue of that name.
var ErrMissing = errors.New("the broker has no such queue")

// Connection is one connection to a server, to ask about queues. It is not safe for
// concurrent use.
type Connection struct {
	session
	channels [maxChannels]*amqp.Channel
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

// Ready asks for each queue how many of its messages wait. The answers are in
// the order of the names. What is wrong with a single queue is the error of its
// answer; an error of the connection, which is then of no more use, is returned.
// It blocks until all are answered, or ctx is done.
func (c *Connection) Ready(ctx context.Context, names []string) ([]Answer, error) {
	answers := make([]Answer, len(names))
	var next atomic.Int64
	var askers errgroup.Group
	for i := range min(len(names), maxChannels) {
		askers.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(names) {
					return nil
				}
				var err error
				if answers[n], err = c.ask(i, names[n]); err != nil {
					return err
				}
			}
		})
	}
	if err := c.during(ctx, askers.Wait); err != nil {
		return nil, err
	}
	return answers, nil
}

// ask asks about one queue over channel number i, by a passive declaration: it
// makes nothing. A server closes the channel of a question that it refuses.
func (c *Connection) ask(i int, name string) (Answer, error) {
	if name == "" || len(name) > maxName {
		return Answer{Err: fmt.Errorf("its name has %d bytes, a queue's has 1 to %d", len(name), maxName)}, nil
	}
	if c.channels[i] == nil {
		channel, err := c.link.Channel()
		if err != nil {
			return Answer{}, err
		}
		c.channels[i] = channel
	}
	queue, err := c.channels[i].QueueDeclarePassive(name, false, false, false, false, nil)
	if err == nil {
		return Answer{Ready: int64(queue.Messages), Consumers: int64(queue.Consumers)}, nil
	}
	c.channels[i] = nil
	var refusal *amqp.Error
	if !errors.As(err, &refusal) || !closesChannelAlone(refusal) {
		return Answer{}, err
	}
	if isMissing(refusal) {
		return Answer{Err: ErrMissing}, nil
	}
	return Answer{Err: fmt.Errorf("the broker refuses to say: %w", err)}, nil
}

// closesChannelAlone reports whether the server has closed a channel and not the
// whole connection (AMQP 0-9-1, 1.2, reply codes).
func closesChannelAlone(err *amqp.Error) bool {
	soft := []int{amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed}
	return err.Server && slices.Contains(soft, err.Code)
}

// isMissing tells a queue that does not exist from one whose node is down, for
// which the code is the same (rabbit_amqqueue.erl, absent/2).
func isMissing(err *amqp.Error) bool {
	return err.Code == amqp.NotFound && strings.Contains(err.Reason, "no queue '")
}
