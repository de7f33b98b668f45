package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// maxAttempts bounds how often the exchange of a sample is repeated.
	maxAttempts = 5
	// maxQueues bounds the queues that are known.
	maxQueues = 50_000
)

// Driver reads one broker. It is not safe for concurrent use.
type Driver struct {
	cfg       Config
	keys      celery.Keys
	endpoints []endpoint
	// current is the endpoint in use: the last one that worked.
	current int

	backlogs []*backlogReader
	names    map[string]bool
	bindings *bindings
	holder   *holder
	role     roleCheck
}

// New checks the configuration and makes a driver. It reads the TLS files and
// does no other I/O. Its errors name no credential.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	u, err := cfg.parseURL()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	endpoints, err := newEndpoints(cfg, u)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	keys := celery.NewKeys(cfg.GlobalKeyPrefix, cfg.Separator, cfg.UnackedKey, cfg.UnackedIndexKey)
	d := &Driver{
		cfg: cfg, keys: keys, endpoints: endpoints, names: map[string]bool{},
		bindings: newBindings(keys, len(cfg.Queues) == 0), holder: newHolder(cfg, keys),
	}
	if _, err := d.learn(context.Background(), cfg.Queues); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close closes the connections.
func (d *Driver) Close() error { return closeAll(d.endpoints) }

// Sample reads every queue at one moment. It blocks for the configured time-out
// at most. With a failover list, the endpoints are tried in turn, beginning with
// the one that worked last.
//
// An error means that nothing is known; it says which broker, at which address,
// why, and what to do, and names no credential. What could not be read of single
// queues is unknown in the sample.
func (d *Driver) Sample(ctx context.Context) (*queue.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	var errs []error
	for range d.endpoints {
		e := d.endpoints[d.current]
		sample, err := d.sample(ctx, e)
		if err == nil {
			return sample, nil
		}
		errs = append(errs, explain(d.cfg.Ref, e.address, err))
		d.switchOver()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// switchOver turns to the next endpoint, of which some things are not known.
func (d *Driver) switchOver() {
	d.current = (d.current + 1) % len(d.endpoints)
	d.holder.size = -1
	d.bindings.restart()
	d.role = roleCheck{}
}

// sample reads one endpoint.
func (d *Driver) sample(ctx context.Context, e endpoint) (*queue.Sample, error) {
	deadline := time.Now().Add(d.cfg.Timeout / 2)
	d.holder.begin(deadline)
	d.bindings.refused = nil
	for _, r := range d.backlogs {
		r.refused = nil
	}
	if err := d.discover(ctx, e, deadline); err != nil {
		return nil, err
	}
	if err := d.holder.measure(ctx, e); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		at := time.Now()
		held, again, err := d.attempt(ctx, e, at)
		if err != nil {
			return nil, err
		}
		if !again || attempt == maxAttempts {
			return d.compose(at, held), nil
		}
	}
}

// discover reads the binding tables until all were seen, or as long as one
// sample can wait for it.
func (d *Driver) discover(ctx context.Context, e endpoint, deadline time.Time) error {
	for d.bindings.pending() && time.Now().Before(deadline) {
		if err := e.exec(ctx, false, d.bindings.send(ctx, nil)); err != nil {
			return err
		}
		if err := d.absorbBindings(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) absorbBindings(ctx context.Context) error {
	found, err := d.bindings.absorb()
	if err != nil || !d.bindings.discover {
		return err
	}
	_, err = d.learn(ctx, found)
	return err
}

// learn adds queues and reports whether one of them is new. Queues once known
// stay known: a binding may be swept away while its queue is merely empty.
func (d *Driver) learn(ctx context.Context, names []string) (bool, error) {
	known := len(d.backlogs)
	for _, name := range names {
		if d.names[name] {
			continue
		}
		if len(d.backlogs) >= maxQueues {
			return false, fmt.Errorf("more than %d queues: list those of interest in spec.queues", maxQueues)
		}
		d.names[name] = true
		d.backlogs = append(d.backlogs, newBacklogReader(context.WithoutCancel(ctx), d.keys, name))
	}
	return len(d.backlogs) > known, nil
}

// attempt makes one exchange and reports whether it must be repeated.
func (d *Driver) attempt(ctx context.Context, e endpoint, at time.Time) (inFlight, bool, error) {
	if err := d.exchange(ctx, e); err != nil {
		return inFlight{}, false, err
	}
	if err := d.role.verdict(); err != nil {
		return inFlight{}, false, err
	}
	again := false
	for _, r := range d.backlogs {
		again = r.learnPriorities(context.WithoutCancel(ctx)) || again
	}
	if err := d.absorbBindings(ctx); err != nil {
		return inFlight{}, false, err
	}
	unsettled, err := d.holder.absorb(ctx, e, at)
	if err != nil {
		return inFlight{}, false, err
	}
	if err := d.readBindings(ctx, e); err != nil {
		return inFlight{}, false, err
	}
	held := d.holder.attribute(d.bindings)
	news, err := d.learnFrom(ctx, held)
	return held, again || unsettled || news, err
}

// learnFrom adds the queues of messages in flight, where queues are discovered.
func (d *Driver) learnFrom(ctx context.Context, held inFlight) (bool, error) {
	if !d.bindings.discover {
		return false, nil
	}
	names := make([]string, 0, len(held.queues))
	for name := range held.queues {
		names = append(names, name)
	}
	return d.learn(ctx, names)
}

// exchange runs everything of a sample as one transaction. If the server
// refuses some of it, that is left out and the rest asked for again.
func (d *Driver) exchange(ctx context.Context, e endpoint) error {
	commands := d.commands(ctx)
	err := e.exec(ctx, true, commands)
	if !isAbort(err) {
		return err
	}
	d.noteRefusals()
	rest := d.commands(ctx)
	if len(rest) == len(commands) {
		return firstCause(commands, err)
	}
	err = e.exec(ctx, true, rest)
	if isAbort(err) {
		return firstCause(rest, err)
	}
	return err
}

func (d *Driver) commands(ctx context.Context) []goredis.Cmder {
	commands := d.role.send(ctx, make([]goredis.Cmder, 0, 2*len(d.backlogs)+16))
	for _, r := range d.backlogs {
		commands = r.send(commands)
	}
	commands = d.holder.send(ctx, commands)
	return d.bindings.send(ctx, commands)
}

func (d *Driver) noteRefusals() {
	d.role.noteRefusal()
	for _, r := range d.backlogs {
		r.noteRefusal()
	}
	d.holder.noteRefusal()
	d.bindings.noteRefusal()
}

// firstCause is the error of the command for which a transaction was refused.
func firstCause(commands []goredis.Cmder, abort error) error {
	for _, c := range commands {
		if err := c.Err(); err != nil && !isAbort(err) {
			return err
		}
	}
	return abort
}

// readBindings reads the tables of exchanges that messages in flight name and
// that were not known before.
func (d *Driver) readBindings(ctx context.Context, e endpoint) error {
	missing := false
	for r := range d.holder.routes.ids {
		named := r.exchange != "" && !celery.IsInternalExchange(r.exchange)
		if named && d.bindings.tables[r.exchange] == nil {
			missing = d.bindings.want(r.exchange) || missing
		}
	}
	for missing && len(d.bindings.unread) > 0 && d.bindings.refused == nil {
		if err := e.exec(ctx, false, d.bindings.send(ctx, nil)); err != nil {
			return err
		}
		if err := d.absorbBindings(ctx); err != nil {
			return err
		}
	}
	return nil
}

// compose puts the sample together.
func (d *Driver) compose(at time.Time, held inFlight) *queue.Sample {
	s := &queue.Sample{
		At: at, Queues: make(map[string]queue.Depth, len(d.backlogs)),
		Unattributed: held.unattributed, DiscoveryPending: d.bindings.pending(),
	}
	for _, r := range d.backlogs {
		inFlight, scheduled := held.depth(r.name, at)
		s.Queues[r.name] = queue.Depth{Backlog: r.count(at), InFlight: inFlight, Scheduled: scheduled}
	}
	return s
}
