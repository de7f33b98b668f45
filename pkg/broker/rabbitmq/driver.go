package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Driver reads one broker. It is not safe for concurrent use.
type Driver struct {
	cfg       Config
	endpoints []server.Endpoint
	listers   []*lister // one per endpoint
	// current is the endpoint in use: the last one that worked.
	current    int
	connection *server.Connection // nil while there is none
	known      *known
	untaken    untaken
}

// New checks the configuration and makes a driver. It reads the TLS files and
// does no other I/O. Its errors name no credential.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	endpoints, err := cfg.endpoints()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	d := &Driver{cfg: cfg, endpoints: endpoints, known: newKnown(cfg.Queues), untaken: untaken{}}
	for _, e := range endpoints {
		settings, err := cfg.management(e)
		if err != nil {
			return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
		}
		d.listers = append(d.listers, newLister(settings))
	}
	return d, nil
}

// Close ends the connections. It blocks until they are closed, a second at most.
func (d *Driver) Close() error {
	for _, l := range d.listers {
		l.close()
	}
	if d.connection == nil {
		return nil
	}
	return d.connection.Close()
}

// Sample reads every queue: the messages that are ready at once, those that are
// unacknowledged as of the latest list of the management API. It blocks for the
// configured time-out at most. With a failover list, the endpoints are tried in
// turn, beginning with the one that worked last.
//
// An error means that nothing is known; it says which broker, at which address,
// why, and what to do, and names no credential. What could not be read of single
// queues, or by the management API, is unknown in the sample.
func (d *Driver) Sample(ctx context.Context) (*queue.Sample, error) {
	return transport.Failover(ctx, len(d.endpoints), d.cfg.Timeout, func(ctx context.Context) (*queue.Sample, error) {
		sample, err := d.sample(ctx)
		if err != nil {
			return nil, d.explain(err)
		}
		return sample, nil
	}, d.switchOver)
}

// errNotFound says why no queue is known. What comes behind it has its advice.
var errNotFound = errors.New("without a list in spec.queues, the queues can be found through the management API alone")

// explain says what failed, where, why, and what to do about it.
func (d *Driver) explain(err error) error {
	hint := server.Hint(err)
	if errors.Is(err, errNotFound) {
		hint = ""
	}
	if hint != "" {
		hint = ": " + hint
	}
	return fmt.Errorf("sample broker %s at %s: %w%s", d.cfg.Ref, d.endpoints[d.current], err, hint)
}

// switchOver turns to the next endpoint.
func (d *Driver) switchOver() {
	d.abandon()
	d.current = (d.current + 1) % len(d.endpoints)
}

// abandon ends a connection that is of no more use.
func (d *Driver) abandon() {
	if d.connection != nil {
		d.connection.Abandon()
		d.connection = nil
	}
}

// sample reads the current endpoint. The list comes before the questions: what
// has left a queue in between can then be told, see inFlight.
func (d *Driver) sample(ctx context.Context) (*queue.Sample, error) {
	begun := time.Now()
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	l := d.listers[d.current]
	cluster := d.connection.ClusterName()
	l.refresh(ctx, cluster)
	list, unlisted := l.current(cluster, time.Now(), d.cfg.MaxAge)
	if err := d.known.learn(list); err != nil {
		return nil, err
	}
	if list == nil && len(d.known.names) == 0 {
		return nil, fmt.Errorf("%w: %w", errNotFound, unlisted)
	}
	r := reading{
		at: time.Now(), virtualHost: d.endpoints[d.current].VirtualHost, quorumLag: d.cfg.QuorumTick,
		list: list, unlisted: unlisted, seen: d.known.seen, acknowledged: d.acknowledged(),
		untaken: d.untaken,
	}
	if err := d.ask(ctx, &r, d.known.toAsk(list, begun)); err != nil {
		return nil, err
	}
	return &queue.Sample{
		At: r.at, Queues: r.depths(d.known.names), Delayed: r.delayed(), Degraded: l.failure,
		DiscoveryPending: d.known.discovers && list == nil,
	}, nil
}

// acknowledged is how many tasks of each queue execute that the broker has forgotten
// already. It is to be called after the list was made: a task that is acknowledged
// between the two then counts twice, and not at all otherwise.
func (d *Driver) acknowledged() map[string]int64 {
	if d.cfg.Executing == nil {
		return nil
	}
	count := map[string]int64{}
	for _, task := range d.cfg.Executing() {
		if task.Acknowledged {
			count[task.Queue]++
		}
	}
	return count
}

// ask fills in the server's answers.
func (d *Driver) ask(ctx context.Context, r *reading, names []string) error {
	answers, err := d.connection.Ready(ctx, names, nil)
	if err != nil {
		return err
	}
	r.answers = make(map[string]server.Answer, len(names))
	for i, name := range names {
		r.answers[name] = answers[i]
	}
	d.known.note(r.answers, r.at)
	d.untaken.note(r.answers, r.at)
	return nil
}

// connect makes a connection if there is none that lives, or if the cluster may
// have been given another name since: a connection knows the one of its log-in.
func (d *Driver) connect(ctx context.Context) error {
	l := d.listers[d.current]
	if d.connection != nil && !d.connection.IsClosed() && !l.doubtsCluster {
		return nil
	}
	d.abandon()
	connection, err := d.endpoints[d.current].Dial(ctx)
	if err != nil {
		return err
	}
	d.connection = connection
	l.doubtsCluster = false
	return nil
}
