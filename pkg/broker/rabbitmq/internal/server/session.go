package server

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// farewell bounds the orderly end of a connection.
const farewell = time.Second

// session is a connection that is logged in.
type session struct {
	link   *amqp.Connection
	socket *witness
}

// IsClosed reports whether the connection has ended.
func (s session) IsClosed() bool { return s.link.IsClosed() }

// Close says farewell, for which a server that is silent gets a second, and ends
// the connection.
func (s session) Close() error {
	err := s.link.CloseDeadline(time.Now().Add(farewell))
	_ = s.socket.Close() // which the library has done, unless it failed
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

// Abandon ends a connection that is of no more use.
func (s session) Abandon() {
	_ = s.socket.Close()
	_ = s.link.CloseDeadline(time.Now())
}

// during does something that takes answers of the server. If ctx is done before
// that, the connection is ended, and the error is that of ctx.
func (s session) during(ctx context.Context, do func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = s.socket.Close() })
	defer stop()
	if err := do(); err != nil || ctx.Err() != nil {
		return s.socket.cause(ctx, err)
	}
	return nil
}
