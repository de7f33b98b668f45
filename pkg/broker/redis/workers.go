package redis

import (
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/mailbox"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Workers hears the workers of one broker and asks them by remote control. It has
// connections of its own and is safe for concurrent use.
type Workers struct {
	*failoverList
	cfg       Config
	keys      celery.Keys
	transport celery.Transport

	asking  sync.Mutex
	mailbox *mailbox.Mailbox
}

// NewWorkers checks the configuration, as New does, and connects to nothing. Of the
// Config it heeds what reaching the servers takes, GlobalKeyPrefix and Timeout. Its
// errors name no credential.
func NewWorkers(cfg Config) (*Workers, error) {
	cfg = cfg.withDefaults()
	list, u, err := newFailoverList(cfg)
	if err != nil {
		return nil, err
	}
	keys := celery.NewKeys(cfg.GlobalKeyPrefix, "", "", "")
	return &Workers{
		failoverList: list, cfg: cfg, keys: keys, transport: u.Transport, mailbox: mailbox.New(keys, uuid.NewString()),
	}, nil
}

// Close closes the connections. What is left of questions in Redis expires.
func (w *Workers) Close() error { return w.failoverList.Close() }

// purpose is what errors say. Rights are what a user needs in database 0, beside the
// channels.
func (w *Workers) purpose(doing string, e server.Endpoint, rights string, channels []string) server.Purpose {
	if e.DB != 0 {
		rights += " +select"
	}
	rights += " &" + strings.Join(channels, " &")
	return server.Purpose{Doing: doing, Broker: w.cfg.Ref, Rights: rights + " (ACL SETUSER)"}
}
