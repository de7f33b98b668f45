package server

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// witness is a connection that remembers why reading from it has failed. The
// client library may say no more than that its connection is closed.
type witness struct {
	net.Conn
	failure atomic.Pointer[error]
}

// Read implements net.Conn.
func (w *witness) Read(buffer []byte) (int, error) {
	n, err := w.Conn.Read(buffer)
	if err != nil {
		w.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

// cause is the reason behind an error of the client library: that ctx is done, on
// which the socket is closed; what the server said, or offered; or how reading has
// failed.
func (w *witness) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if said, ok := errors.AsType[*amqp.Error](err); ok && (said.Server || said == amqp.ErrSASL) {
		return err
	}
	if failure := w.failure.Load(); failure != nil && !errors.Is(*failure, net.ErrClosed) {
		return *failure
	}
	return err
}
