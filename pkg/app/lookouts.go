package app

import (
	"github.com/celery-hpa/celery-hpa/pkg/app/internal/drivers"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/observe/lookout"
)

// lookoutOf says how queues of a broker are watched whose workers are at zero.
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
			return drivers.OpenLookout(b)
		},
	}
}
