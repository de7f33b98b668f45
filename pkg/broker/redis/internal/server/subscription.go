package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// pingInterval is how often a server is asked whether it is still there: as
	// often as a worker sends heartbeats.
	pingInterval = 2 * time.Second
	// maxSilence is how long a server may leave that unanswered and say nothing
	// else. It is looked at with each ping: three at the most get no answer.
	maxSilence = 5 * time.Second
)

var (
	// errSilent says that a connection is open, but dead.
	errSilent = fmt.Errorf("the server has said nothing for %s, not even to a ping: is it overloaded or paused, or is the network blocked?", maxSilence)
	// errReconnected says that the client library has connected anew by itself.
	errReconnected = errors.New("connected anew")
	// errUnsubscribed says that a server answers, but not what was asked.
	errUnsubscribed = errors.New("the server did not confirm the subscription: is it a Redis?")
)

// Subscription is a connection that hears what is published in some channels.
type Subscription struct {
	pubsub *goredis.PubSub
	// began is when it did. heard is for how long it had been there when the
	// server said something last: a time.Duration.
	began time.Time
	heard atomic.Int64
}

// Subscribe makes a subscription to the patterns and returns once the server has
// confirmed it. It blocks for the time-out of Settings at most.
func (e Endpoint) Subscribe(ctx context.Context, patterns []string) (*Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	s := &Subscription{pubsub: e.client.PSubscribe(ctx), began: time.Now()} // no pattern, no I/O yet
	if err := s.confirm(ctx, e.timeout, s.pubsub.PSubscribe, patterns); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// confirm subscribes to the names. One command confirms them all in one go, so that
// no message comes in between.
func (s *Subscription) confirm(ctx context.Context, timeout time.Duration, subscribe func(context.Context, ...string) error, names []string) error {
	if err := subscribe(ctx, names...); err != nil {
		return err
	}
	for range names {
		reply, err := s.pubsub.ReceiveTimeout(ctx, timeout)
		if err != nil {
			return err
		}
		if _, ok := reply.(*goredis.Subscription); !ok {
			return errUnsubscribed
		}
	}
	return nil
}

// Close ends the subscription; it is of no more use then.
func (s *Subscription) Close() error {
	if err := s.pubsub.Close(); err != nil && !errors.Is(err, goredis.ErrClosed) {
		return err
	}
	return nil
}

// Receive hands over each message with the pattern that it came by, one after the
// other, until the context is done or the connection is lost, also if it merely
// goes silent, and closes the subscription. It never returns nil: the context's
// error, or what is wrong with the connection. It waits for heard to return, which
// is to do so soon: the server drops those that read too slowly.
func (s *Subscription) Receive(ctx context.Context, heard func(pattern, payload string)) error {
	return s.hear(ctx, func(m *goredis.Message) { heard(m.Pattern, m.Payload) })
}

// hear is Receive, with all that is said of a message.
func (s *Subscription) hear(ctx context.Context, heard func(*goredis.Message)) error {
	ctx, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(ctx, stop) })
	stop(s.receive(context.WithoutCancel(ctx), heard))
	watch.Wait()
	return context.Cause(ctx)
}

// receive reads until the connection is closed, and never only until some time: in
// the midst of a message, the rest would be taken for something else.
func (s *Subscription) receive(ctx context.Context, heard func(*goredis.Message)) error {
	for {
		reply, err := s.pubsub.Receive(ctx)
		if isNullMessage(err) {
			reply, err = &goredis.Message{}, nil
		}
		if err != nil && !isReply(err) { // the refusal of a ping is a sign of life as well
			return lost(err)
		}
		s.noteLife()
		switch reply := reply.(type) {
		case *goredis.Message:
			heard(reply)
			s.noteLife()
		case *goredis.Subscription:
			return lost(errReconnected)
		}
	}
}

// lost says what to look at where a subscription has ended that was confirmed.
func lost(err error) error {
	return fmt.Errorf("the subscription is lost (%w): did the server restart, or drop a client that reads too slowly (client-output-buffer-limit)?", err)
}

func (s *Subscription) noteLife() { s.heard.Store(int64(time.Since(s.began))) }

// watch pings, and closes the connection when nothing comes back or the context is
// done: nothing else ends a read.
func (s *Subscription) watch(ctx context.Context, stop context.CancelCauseFunc) {
	s.noteLife()
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	defer func() { _ = s.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if time.Since(s.began)-time.Duration(s.heard.Load()) > maxSilence {
			stop(errSilent)
			return
		}
		if err := s.pubsub.Ping(context.WithoutCancel(ctx)); err != nil {
			stop(lost(err))
			return
		}
	}
}
