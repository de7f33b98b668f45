package transport

import (
	"context"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Failover tries n endpoints in turn, for the time-out in all, until one gives a
// sample. Next turns to the following one. The error has what is wrong with each,
// in one line.
func Failover(ctx context.Context, n int, timeout time.Duration, try func(context.Context) (*queue.Sample, error), next func()) (*queue.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var failure error
	for range n {
		sample, err := try(ctx)
		if err == nil {
			return sample, nil
		}
		failure = then(failure, err)
		next()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failure
}

// then is both errors in one line.
func then(first, second error) error {
	if first == nil {
		return second
	}
	return fmt.Errorf("%w; %w", first, second)
}
