package redis

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// failoverList is the endpoints of a broker, to be tried in turn. It is safe for
// concurrent use.
type failoverList struct {
	endpoints []server.Endpoint
	timeout   time.Duration
	// current is the endpoint in use: the last one that worked.
	current atomic.Int64
}

// newFailoverList checks the configuration, as New does, and connects to nothing.
func newFailoverList(cfg Config) (*failoverList, celery.BrokerURL, error) {
	cfg = cfg.withDefaults()
	u, err := cfg.parseURL()
	if err != nil {
		return nil, u, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	endpoints, err := server.New(cfg.settings(u))
	if err != nil {
		return nil, u, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	return &failoverList{endpoints: endpoints, timeout: cfg.Timeout}, u, nil
}

// Close closes the connections.
func (l *failoverList) Close() error { return server.CloseAll(l.endpoints) }

// onOne does something on the first endpoint that lets it, beginning with the one
// that worked last. It gives up after the time-out in all. The error has what is
// wrong with each, in one line.
func (l *failoverList) onOne(ctx context.Context, purpose func(server.Endpoint) server.Purpose, do func(context.Context, server.Endpoint) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	var failure error
	for range l.endpoints {
		i := l.current.Load()
		e := l.endpoints[i]
		err := do(ctx, e)
		if err == nil {
			return nil
		}
		err = purpose(e).Explain(e.Address, err)
		if failure != nil {
			err = fmt.Errorf("%w; %w", failure, err)
		}
		failure = err
		l.current.CompareAndSwap(i, (i+1)%int64(len(l.endpoints)))
		if ctx.Err() != nil {
			break
		}
	}
	return failure
}
