package servers

import (
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/rabbitmq"
)

// RabbitMQ is a rabbitmq-server with its management API on free loopback ports.
// Its methods are not safe for concurrent use.
type RabbitMQ = rabbitmq.Server

// RabbitMQOptions say how a rabbitmq-server is set up. The zero value is a plain
// server with its management API, whose user guest (password guest) is an
// administrator.
type RabbitMQOptions = rabbitmq.Options

// StartRabbitMQ starts a server and returns when AMQP and the management API
// answer. It is stopped when the test ends.
func StartRabbitMQ(t testing.TB, options RabbitMQOptions) *RabbitMQ {
	t.Helper()
	return rabbitmq.Start(t, options)
}
