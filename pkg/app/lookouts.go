package app

import (
	"context"
	"fmt"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
)

// lookoutOf says how queues of a broker of the brokers file are watched whose workers
// are at zero.
func lookoutOf(b brokers.Broker) lookout.Spec {
	return lookout.Spec{
		Ref:         b.Ref(),
		Interval:    b.Spec.Lookout.Interval.Duration,
		Budget:      int(*b.Spec.Lookout.ReadsPerSecond),
		Fingerprint: b.Fingerprint,
		Open: func() (lookout.Source, error) {
			if b.Err != nil {
				return nil, b.Err
			}
			return openLookout(b)
		},
	}
}

// openLookout makes the source that a broker's URL asks for.
func openLookout(b brokers.Broker) (lookout.Source, error) {
	u, err := celery.ParseBrokerURL(b.URL)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Ref(), err)
	}
	if u.Transport == celery.TransportAMQP {
		source, err := rabbitmq.NewLookout(rabbitmqConfig(b))
		return rabbitmqLookout{source}, err
	}
	config := redisConfig(b)
	config.Untold = !*b.Spec.Lookout.Tracking
	source, err := redis.NewLookout(config)
	return redisLookout{source}, err
}

// redisLookout and rabbitmqLookout are the drivers' as sources.
type (
	redisLookout    struct{ *redis.Lookout }
	rabbitmqLookout struct{ *rabbitmq.Lookout }
)

// Open implements lookout.Source.
func (l redisLookout) Open(ctx context.Context) (lookout.Line, error) {
	line, err := l.Lookout.Open(ctx)
	if err != nil {
		return nil, err
	}
	return line, nil
}

// Open implements lookout.Source.
func (l rabbitmqLookout) Open(ctx context.Context) (lookout.Line, error) {
	line, err := l.Lookout.Open(ctx)
	if err != nil {
		return nil, err
	}
	return line, nil
}
