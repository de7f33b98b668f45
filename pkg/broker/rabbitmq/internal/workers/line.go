package workers

import (
	"context"
	"fmt"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
)

// line is the endpoints of a broker for one purpose, to be tried in turn. It is not
// safe for concurrent use.
type line struct {
	// doing and needs are for errors.
	doing     string
	needs     rights
	endpoints []server.Endpoint
	// current is the endpoint in use: the last one that worked.
	current int
}

// open opens an inbox on the first endpoint that lets it, beginning with the one that
// worked last. The error has what is wrong with each, in one line.
func (l *line) open(ctx context.Context, on func(server.Endpoint) (*server.Inbox, error)) (*server.Inbox, error) {
	var failure error
	for range l.endpoints {
		inbox, err := on(l.endpoints[l.current])
		if err == nil {
			return inbox, nil
		}
		err = l.explain(err)
		if failure != nil {
			err = fmt.Errorf("%w; %w", failure, err)
		}
		failure = err
		l.current = (l.current + 1) % len(l.endpoints)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failure
}

// explain says what failed, where, why, and what to do about it.
func (l *line) explain(err error) error {
	e := l.endpoints[l.current]
	hint := l.needs.hint(e, err)
	if hint != "" {
		hint = ": " + hint
	}
	return fmt.Errorf("%s at %s: %w%s", l.doing, e, err, hint)
}
