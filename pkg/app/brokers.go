package app

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
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// specOf says how a broker of the brokers file is sampled.
func specOf(b brokers.Broker, heard *workers.Store) sampler.Spec {
	return sampler.Spec{
		Declaration: snapshot.Declaration{
			Ref:    b.Ref(),
			MaxAge: b.Spec.Sampling.MaxAge.Duration,
			Queues: aliases(b),
		},
		Interval:     b.Spec.Sampling.Interval.Duration,
		Timeout:      b.Spec.Sampling.Timeout.Duration,
		RestInterval: b.Spec.Lookout.SampleInterval.Duration,
		Fingerprint:  b.Fingerprint,
		Open: func() (sampler.Broker, error) {
			if b.Err != nil {
				return nil, b.Err
			}
			driver, err := open(b, func() []monitor.ExecutingTask { return heard.Executing(b.Ref()) })
			if err != nil {
				return nil, err
			}
			return timed{driver, b.Ref(), heard}, nil
		},
	}
}

// timed is a broker whose samples tell of times as well, which its workers know.
type timed struct {
	sampler.Broker
	ref   queue.BrokerRef
	heard *workers.Store
}

// Sample implements sampler.Broker.
func (t timed) Sample(ctx context.Context) (*queue.Sample, error) {
	sample, err := t.Broker.Sample(ctx)
	if err == nil {
		t.heard.AddTimes(t.ref, sample, time.Now())
	}
	return sample, err
}

// open makes the driver that a broker's URL asks for. It asks executing for the tasks
// that the broker's workers are known to execute.
func open(b brokers.Broker, executing func() []monitor.ExecutingTask) (sampler.Broker, error) {
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

// workersOf says how the workers of a broker of the brokers file are heard.
func workersOf(b brokers.Broker, declared func(host string) workers.Declaration) workers.Spec {
	return workers.Spec{
		Ref:         b.Ref(),
		Control:     *b.Spec.Workers.RemoteControl,
		Declared:    declared,
		Fingerprint: b.Fingerprint,
		Open: func() (workers.Source, error) {
			if b.Err != nil {
				return nil, b.Err
			}
			return openWorkers(b)
		},
	}
}

// openWorkers makes the ear for a broker's workers.
func openWorkers(b brokers.Broker) (workers.Source, error) {
	u, err := celery.ParseBrokerURL(b.URL)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Ref(), err)
	}
	if u.Transport == celery.TransportAMQP {
		return rabbitmq.NewWorkers(rabbitmqConfig(b))
	}
	return redis.NewWorkers(redisConfig(b))
}

// aliases maps each declared queue to its alias; nil if none is declared.
func aliases(b brokers.Broker) map[string]string {
	if len(b.Spec.Queues) == 0 {
		return nil
	}
	aliases := make(map[string]string, len(b.Spec.Queues))
	for _, q := range b.Spec.Queues {
		aliases[q.Name] = q.Alias
	}
	return aliases
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
