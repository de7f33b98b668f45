package lookout

import (
	"context"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Source makes lines to one broker.
type Source interface {
	// Open connects. It blocks for the broker's time-out at most. The error says
	// which broker, at which address, why, and what to do, and names no credential.
	Open(ctx context.Context) (Line, error)
	// Close is called once, after the last line was closed.
	Close() error
}

// Line is a connection over which few queues are read often. Read and Told may be
// called at the same time, each by one goroutine.
type Line interface {
	// Tells reports whether the broker tells of writes. If it does not, Reason says
	// why, and Told is not called. For lack of a right that is a
	// queue.MissingRightError.
	Tells() bool
	Reason() error
	// Read reads how many messages wait in each of these queues, over all priorities,
	// in one pipelined exchange, and returns them in the order of the names, which
	// are the broker's own. A queue that cannot be read is unknown. From then on the
	// next write to each is told, once. An error says that the line is of no use any
	// more.
	Read(ctx context.Context, queues []string) ([]queue.Count, error)
	// Forget has no more writes told of a queue, as far as that is possible; what is
	// told all the same is ignored.
	Forget(queues []string)
	// Told blocks until queues were written that Read has read, and returns their
	// names, each at least once; nil stands for all. An error says that ctx is done,
	// or that the line is of no use any more.
	Told(ctx context.Context) ([]string, error)
	// Close ends the line, and with it a call of Told.
	Close() error
}

// Sink takes in what was read. It is called by one goroutine per broker, and must not
// block.
type Sink interface {
	// Waiting is told how many messages wait in some queues of a broker.
	Waiting(ref queue.BrokerRef, counts map[string]queue.Count)
}
