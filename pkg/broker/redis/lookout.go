package redis

import (
	"context"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/tracking"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// LookoutRights are what a user of Redis needs to be told of messages when they
// arrive, beside the rights for samples, in the words of ACL SETUSER. Without them the
// queues are merely read again and again.
const LookoutRights = server.TrackingRights

// LookoutLine is a connection over which few queues are read often.
type LookoutLine = tracking.Line

// Lookout makes lines to a broker.
type Lookout struct {
	list    *failoverList
	keys    celery.Keys
	purpose server.Purpose
}

// NewLookout checks the configuration, as New does, and connects to nothing. Of the
// Config it heeds what reaching the servers takes, GlobalKeyPrefix, Separator,
// Untold and Timeout. Its errors name no credential.
func NewLookout(cfg Config) (*Lookout, error) {
	list, _, err := newFailoverList(cfg)
	if err != nil {
		return nil, err
	}
	return &Lookout{
		list: list, keys: celery.NewKeys(cfg.GlobalKeyPrefix, cfg.Separator, "", ""),
		purpose: server.Purpose{Doing: "look out for messages of", Broker: cfg.Ref, Rights: LookoutRights + " (ACL SETUSER)"},
	}, nil
}

// Open connects, anew at each call: with two connections to the first server that lets
// it, as Sample looks for one, within the time-out. An error says which broker, at
// which address, why, and what to do.
//
// Where the server tells of no writes, for lack of a right or because it is too old,
// that is no error: the line says so, and why.
func (l *Lookout) Open(ctx context.Context) (*LookoutLine, error) {
	var line *LookoutLine
	err := l.list.onOne(ctx, func(server.Endpoint) server.Purpose { return l.purpose }, func(ctx context.Context, e server.Endpoint) (err error) {
		line, err = tracking.Open(ctx, e, l.keys, l.purpose)
		return err
	})
	return line, err
}

// Close is called once, after the last line was closed.
func (l *Lookout) Close() error { return l.list.Close() }
