package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/mailbox"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Workers hears the workers of one broker and asks them by remote control. It has
// connections of its own and is safe for concurrent use.
type Workers struct {
	cfg       Config
	keys      celery.Keys
	transport celery.Transport
	endpoints []server.Endpoint
	// current is the endpoint in use: the last one that worked.
	current atomic.Int64

	asking  sync.Mutex
	mailbox *mailbox.Mailbox
}

// NewWorkers checks the configuration, as New does, and connects to nothing. Of the
// Config it heeds what reaching the servers takes, GlobalKeyPrefix and Timeout. Its
// errors name no credential.
func NewWorkers(cfg Config) (*Workers, error) {
	cfg = cfg.withDefaults()
	u, err := cfg.parseURL()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	endpoints, err := server.New(cfg.settings(u))
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	keys := celery.NewKeys(cfg.GlobalKeyPrefix, "", "", "")
	return &Workers{
		cfg: cfg, keys: keys, transport: u.Transport, endpoints: endpoints, mailbox: mailbox.New(keys, uuid.NewString()),
	}, nil
}

// Close closes the connections. What is left of questions in Redis expires.
func (w *Workers) Close() error { return server.CloseAll(w.endpoints) }

// onOne does something on the first endpoint that lets it, beginning with the one
// that worked last. It gives up after the time-out in all. The error has what is
// wrong with each, in one line.
func (w *Workers) onOne(ctx context.Context, purpose func(server.Endpoint) server.Purpose, do func(context.Context, server.Endpoint) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	var failure error
	for range w.endpoints {
		i := w.current.Load()
		e := w.endpoints[i]
		err := do(ctx, e)
		if err == nil {
			return nil
		}
		err = purpose(e).Explain(e.Address, err)
		if failure != nil {
			err = fmt.Errorf("%w; %w", failure, err)
		}
		failure = err
		w.current.CompareAndSwap(i, (i+1)%int64(len(w.endpoints)))
		if ctx.Err() != nil {
			break
		}
	}
	return failure
}

// purpose is what errors say. Rights are what a user needs in database 0, beside the
// channels.
func (w *Workers) purpose(doing string, e server.Endpoint, rights string, channels []string) server.Purpose {
	if e.DB != 0 {
		rights += " +select"
	}
	rights += " &" + strings.Join(channels, " &")
	return server.Purpose{Doing: doing, Broker: w.cfg.Ref, Rights: rights + " (ACL SETUSER)"}
}
