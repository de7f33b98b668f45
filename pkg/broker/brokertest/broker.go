package brokertest

import (
	"context"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Driver is what is tested.
type Driver interface {
	// Sample asks the broker once.
	Sample(ctx context.Context) (*queue.Sample, error)
	// Close ends the connections.
	Close() error
}

// Message is a task as Celery publishes it.
type Message struct {
	// Priority is 0 to 9.
	Priority int
	// ETA is when the task may run; zero means at once.
	ETA time.Time
}

// Delivery is a message that a worker has taken. What it holds is the broker's
// own affair.
type Delivery any

// Broker is a real server, with somebody who publishes and consumes as Celery
// does. Each method fails the test at an error and returns when its effect can
// be seen by others.
type Broker interface {
	// Declare makes a queue as a worker does that consumes it.
	Declare(t testing.TB, queue string)
	// Publish sends messages to a queue.
	Publish(t testing.TB, queue string, messages ...Message)
	// Take makes a worker hold n messages of a queue without acknowledging.
	Take(t testing.TB, queue string, n int) []Delivery
	// Acknowledge removes messages for good.
	Acknowledge(t testing.TB, deliveries ...Delivery)
	// Return puts messages back, as a worker does at a warm shutdown.
	Return(t testing.TB, deliveries ...Delivery)
	// Purge removes a queue's waiting messages, Delete the queue.
	Purge(t testing.TB, queue string)
	Delete(t testing.TB, queue string)

	// Stop ends the server, Start brings it back with its data. What a worker held
	// may be backlog after that.
	Stop(t testing.TB)
	Start(t testing.TB)
	// Pause makes the server silent without closing connections.
	Pause(t testing.TB)
	Resume(t testing.TB)
	// Wipe removes everything that the drivers can see.
	Wipe(t testing.TB)
	// Forbid takes the permission to read away from the drivers' user, Allow
	// gives it back.
	Forbid(t testing.TB)
	Allow(t testing.TB)

	// NewDriver makes a driver for the queues, or for all if none is named. It
	// has a time-out of Timeout.
	NewDriver(t testing.TB, access Access, queues ...string) Driver
	// Traits say in what brokers differ.
	Traits() Traits
}

// Traits are what is true of one kind of broker and not of another. The zero
// value is a broker that tells everything at once.
type Traits struct {
	// Settles: counts are right some time after the fact rather than at once.
	Settles bool
	// HidesETA: the broker does not tell which messages are held for an ETA. How
	// many are scheduled is then unknown unless none is in flight, and all in
	// flight are work.
	HidesETA bool
	// SeveralTimes: counts of one sample may be of different times, none later
	// than the sample's own.
	SeveralTimes bool
	// NoLineBreaks: no queue's name holds one.
	NoLineBreaks bool
}

// Timeout is that of the drivers under test.
const Timeout = 2 * time.Second

// Access says what a driver logs in with.
type Access int

// The ways to log in.
const (
	RightPassword Access = iota
	WrongPassword
)

// Secret is the password of the drivers' user, right or wrong: no error may
// hold it.
const Secret = "s3cret/;:@pass%word"

// Counts is what a queue should hold.
type Counts struct {
	Backlog, InFlight, Scheduled int64
}
