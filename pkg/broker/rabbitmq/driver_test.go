package rabbitmq_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// Every kind of queue that Celery declares is read alike.
func TestContract(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for kind, arguments := range map[string]amqp.Table{
		"classic":        nil,
		"priority, lazy": {"x-max-priority": 10, "x-queue-mode": "lazy"},
		"quorum":         {"x-queue-type": "quorum"},
	} {
		t.Run(kind, func(t *testing.T) {
			brokertest.Run(t, func(t testing.TB) brokertest.Broker { return startCelery(t, server, arguments) })
		})
	}
}
