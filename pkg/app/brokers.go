package app

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
)

// specOf says how a broker of the brokers file is sampled.
func specOf(b brokersfile.Broker) sampler.Spec {
	return sampler.Spec{
		Declaration: snapshot.Declaration{
			Ref:    b.Ref(),
			MaxAge: b.Spec.Sampling.MaxAge.Duration,
			Queues: aliases(b),
		},
		Interval:    b.Spec.Sampling.Interval.Duration,
		Timeout:     b.Spec.Sampling.Timeout.Duration,
		Fingerprint: b.Fingerprint,
		Open: func() (sampler.Broker, error) {
			if b.Err != nil {
				return nil, b.Err
			}
			return open(b)
		},
	}
}

// open makes the driver that a broker's URL asks for.
func open(b brokersfile.Broker) (sampler.Broker, error) {
	u, err := celery.ParseBrokerURL(b.URL)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", b.Ref(), err)
	}
	if u.Transport == celery.TransportAMQP {
		return rabbitmq.New(rabbitmqConfig(b))
	}
	return redis.New(redisConfig(b))
}

// aliases maps each declared queue to its alias; nil if none is declared.
func aliases(b brokersfile.Broker) map[string]string {
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
func names(b brokersfile.Broker) []string {
	queues := make([]string, 0, len(b.Spec.Queues))
	for _, q := range b.Spec.Queues {
		queues = append(queues, q.Name)
	}
	return queues
}

func redisConfig(b brokersfile.Broker) redis.Config {
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
		CAFile:           spec.TLS.CAFile,
		CertFile:         spec.TLS.CertFile,
		KeyFile:          spec.TLS.KeyFile,
		Timeout:          spec.Sampling.Timeout.Duration,
	}
}

func rabbitmqConfig(b brokersfile.Broker) rabbitmq.Config {
	spec := b.Spec
	return rabbitmq.Config{
		Ref:                b.Ref(),
		URL:                b.URL,
		Queues:             names(b),
		LoginMethod:        spec.RabbitMQ.LoginMethod,
		ManagementURL:      spec.RabbitMQ.ManagementURL,
		ManagementUsername: spec.RabbitMQ.Management.Username,
		ManagementPassword: b.ManagementPassword,
		CAFile:             spec.TLS.CAFile,
		CertFile:           spec.TLS.CertFile,
		KeyFile:            spec.TLS.KeyFile,
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
