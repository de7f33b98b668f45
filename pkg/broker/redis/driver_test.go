package redis_test

import (
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
)

func TestContract(t *testing.T) {
	brokertest.Run(t, func(t testing.TB) brokertest.Broker {
		return startKombu(t, redis.Config{})
	})
}

func TestContractWithRenamedKeys(t *testing.T) {
	brokertest.Run(t, func(t testing.TB) brokertest.Broker {
		return startKombu(t, redis.Config{GlobalKeyPrefix: "my[app]:", Separator: ":", UnackedKey: "held", UnackedIndexKey: "held_index"})
	})
}
