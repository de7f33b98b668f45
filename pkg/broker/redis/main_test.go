package redis_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
)

func TestMain(m *testing.M) {
	redis.DiscardClientLog()
	goleak.VerifyTestMain(m)
}
