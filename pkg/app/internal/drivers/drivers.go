package drivers

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
)

// Open makes the driver that a broker's URL asks for. It asks executing for the tasks
// that the broker's workers are known to execute.
func Open(b brokers.Broker, executing func() []monitor.ExecutingTask) (sampler.Broker, error) {
	u, err := celery.ParseBrokerURL(b.URL)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Ref(), err)
	}
	if u.Transport == celery.TransportAMQP {
		config := rabbitmqConfig(b)
		config.Executing = executing
		return rabbitmq.New(config)
	}
	config := redisConfig(b)
	config.Executing = executing
	return redis.New(config)
}

// OpenWorkers makes the ear for a broker's workers.
func OpenWorkers(b brokers.Broker) (workers.Source, error) {
	u, err := celery.ParseBrokerURL(b.URL)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Ref(), err)
	}
	if u.Transport == celery.TransportAMQP {
		return rabbitmq.NewWorkers(rabbitmqConfig(b))
	}
	return redis.NewWorkers(redisConfig(b))
}

// OpenLookout makes the source that a broker's URL asks for.
func OpenLookout(b brokers.Broker) (lookout.Source, error) {
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

// names lists each declared queue.
func names(b brokers.Broker) []string {
	queues := make([]string, 0, len(b.Spec.Queues))
	for _, q := range b.Spec.Queues {
		queues = append(queues, q.Name)
	}
	return queues
}

func redisConfig(b brokers.Broker) redis.Config {
	spec := b.Spec
	return redis.Config{
		Ref:              b.Ref(),
		URL:              b.URL,
		Queues:           names(b),
		GlobalKeyPrefix:  spec.Redis.GlobalKeyPrefix,
		Separator:        spec.Redis.Separator,
		UnackedKey:       spec.Redis.UnackedKey,
		UnackedIndexKey:  spec.Redis.UnackedIndexKey,
		MasterName:       spec.Redis.MasterName,
		SentinelUsername: spec.Redis.Sentinel.Username,
		SentinelPassword: b.SentinelPassword,
		CA:               b.TLS.CA,
		Cert:             b.TLS.Cert,
		Key:              b.TLS.Key,
		Timeout:          spec.Sampling.Timeout.Duration,
	}
}

func rabbitmqConfig(b brokers.Broker) rabbitmq.Config {
	spec := b.Spec
	return rabbitmq.Config{
		Ref:                b.Ref(),
		URL:                b.URL,
		Queues:             names(b),
		LoginMethod:        spec.RabbitMQ.LoginMethod,
		ManagementURL:      spec.RabbitMQ.ManagementURL,
		ManagementUsername: spec.RabbitMQ.Management.Username,
		ManagementPassword: b.ManagementPassword,
		CA:                 b.TLS.CA,
		Cert:               b.TLS.Cert,
		Key:                b.TLS.Key,
		QuorumTick:         durationOf(spec.RabbitMQ.QuorumTickInterval),
		Timeout:            spec.Sampling.Timeout.Duration,
		MaxAge:             spec.Sampling.MaxAge.Duration,
	}
}

// durationOf is zero for what is not set.
func durationOf(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}
