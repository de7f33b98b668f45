package redis_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
)

func TestMain(m *testing.M) {
	redis.DiscardClientLog()
	goleak.VerifyTestMain(m,
		// The client probes a server that is gone once a second, and notices that it
		// was closed at the next time.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}
