package app

import (
	"context"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/app/internal/drivers"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/sampler"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// specOf says how a broker is sampled.
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
			c := &completed{ref: b.Ref(), heard: heard}
			var err error
			c.Broker, err = drivers.Open(b, c.executing)
			return c, err
		},
	}
}

// completed is a broker whose samples tell as well what its workers know: which tasks
// have begun, and times.
type completed struct {
	sampler.Broker
	ref   queue.BrokerRef
	heard *workers.Store
	told  []monitor.ExecutingTask // for the latest sample
}

// executing returns what the workers have told, for a sample.
func (c *completed) executing() []monitor.ExecutingTask {
	c.told = c.heard.Executing(c.ref)
	return c.told
}

// Sample implements sampler.Broker.
func (c *completed) Sample(ctx context.Context) (*queue.Sample, error) {
	sample, err := c.Broker.Sample(ctx)
	if err == nil {
		now := time.Now()
		c.heard.AddBegun(c.ref, sample, c.told, now)
		c.heard.AddTimes(c.ref, sample, now)
	}
	return sample, err
}

// workersOf says how the workers of a broker are heard.
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
			return drivers.OpenWorkers(b)
		},
	}
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
