package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/unacked"
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
	purpose   server.Purpose
	keys      celery.Keys
	endpoints []server.Endpoint
	// current is the endpoint in use: the last one that worked.
	current int

	backlogs []*backlogReader
	look     lookRight
	names    map[string]bool
	bindings *unacked.Bindings
	holder   *unacked.Holder
	role     server.RoleCheck
}

// New checks the configuration and makes a driver. It reads the TLS files and
// does no other I/O. Its errors name no credential.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	u, err := cfg.parseURL()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	endpoints, err := server.New(cfg.settings(u))
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	keys := celery.NewKeys(cfg.GlobalKeyPrefix, cfg.Separator, cfg.UnackedKey, cfg.UnackedIndexKey)
	d := &Driver{
		cfg: cfg, purpose: server.Purpose{Doing: "sample", Broker: cfg.Ref, Rights: server.SampleRights},
		keys: keys, endpoints: endpoints, names: map[string]bool{},
		bindings: unacked.NewBindings(keys, len(cfg.Queues) == 0), holder: unacked.NewHolder(cfg.limits(), keys),
	}
	if _, err := d.learn(context.Background(), cfg.Queues); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// DiscardClientLog silences the Redis client library for the whole process: it
// writes to standard error what our errors say as well. To be called once,
// before the first driver is made.
func DiscardClientLog() { server.DiscardClientLog() }

// Close closes the connections.
func (d *Driver) Close() error { return server.CloseAll(d.endpoints) }

// Sample reads every queue at one moment. It blocks for the configured time-out
// at most. With a failover list, the endpoints are tried in turn, beginning with
// the one that worked last.
//
// An error means that nothing is known; it says which broker, at which address,
// why, and what to do, and names no credential. What could not be read of single
// queues is unknown in the sample.
func (d *Driver) Sample(ctx context.Context) (*queue.Sample, error) {
	return transport.Failover(ctx, len(d.endpoints), d.cfg.Timeout, func(ctx context.Context) (*queue.Sample, error) {
		e := d.endpoints[d.current]
		sample, err := d.sample(ctx, e)
		if err != nil {
			return nil, d.purpose.Explain(e.Address, err)
		}
		return sample, nil
	}, d.switchOver)
}

// switchOver turns to the next endpoint, of which some things are not known.
func (d *Driver) switchOver() {
	d.current = (d.current + 1) % len(d.endpoints)
	d.holder.Reset()
	d.bindings.Restart()
	d.role = server.RoleCheck{}
}

// sample reads one endpoint.
func (d *Driver) sample(ctx context.Context, e server.Endpoint) (*queue.Sample, error) {
	deadline := time.Now().Add(d.cfg.Timeout / 2)
	d.holder.Begin(deadline)
	d.bindings.Begin()
	for _, r := range d.backlogs {
		r.refused = nil
	}
	if err := d.discover(ctx, e, deadline); err != nil {
		return nil, err
	}
	if err := d.holder.Measure(ctx, e); err != nil {
		return nil, err
	}
	if d.cfg.Executing != nil {
		d.holder.Execute(d.cfg.Executing())
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
func (d *Driver) discover(ctx context.Context, e server.Endpoint, deadline time.Time) error {
	for d.bindings.Pending() && time.Now().Before(deadline) {
		if err := d.bindings.Step(ctx, e); err != nil {
			return err
		}
	}
	_, err := d.learn(ctx, d.bindings.TakeFound())
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
		d.backlogs = append(d.backlogs, newBacklogReader(context.WithoutCancel(ctx), d.keys, name, &d.look))
	}
	return len(d.backlogs) > known, nil
}

// attempt makes one exchange and reports whether it must be repeated.
func (d *Driver) attempt(ctx context.Context, e server.Endpoint, at time.Time) (unacked.InFlight, bool, error) {
	if err := d.exchange(ctx, e); err != nil {
		return unacked.InFlight{}, false, err
	}
	if err := d.role.Verdict(); err != nil {
		return unacked.InFlight{}, false, err
	}
	again := false
	for _, r := range d.backlogs {
		r.next.absorb(at)
		again = r.learnPriorities(context.WithoutCancel(ctx)) || again
	}
	if err := d.bindings.Absorb(); err != nil {
		return unacked.InFlight{}, false, err
	}
	unsettled, err := d.holder.Absorb(ctx, e, at)
	if err != nil {
		return unacked.InFlight{}, false, err
	}
	if err := d.bindings.ReadNamed(ctx, e, d.holder); err != nil {
		return unacked.InFlight{}, false, err
	}
	held := d.holder.Attribute(d.bindings)
	found := d.bindings.TakeFound()
	if len(d.cfg.Queues) == 0 {
		found = append(found, slices.DeleteFunc(held.Queues(), celery.IsInternalQueue)...)
	}
	news, err := d.learn(ctx, found)
	return held, again || unsettled || news, err
}

// exchange runs everything of a sample as one transaction. If the server
// refuses some of it, that is left out and the rest asked for again.
func (d *Driver) exchange(ctx context.Context, e server.Endpoint) error {
	commands := d.commands(ctx)
	err := e.Exec(ctx, true, commands)
	if !server.IsAbort(err) {
		return err
	}
	if !slices.ContainsFunc(commands, func(c goredis.Cmder) bool { return server.IsRefusal(c.Err()) }) {
		return server.FirstCause(commands, err)
	}
	d.noteRefusals()
	rest := d.commands(ctx)
	err = e.Exec(ctx, true, rest)
	if server.IsAbort(err) {
		return server.FirstCause(rest, err)
	}
	return err
}

func (d *Driver) commands(ctx context.Context) []goredis.Cmder {
	now := time.Now()
	commands := d.role.Send(ctx, make([]goredis.Cmder, 0, 2*len(d.backlogs)+16))
	for _, r := range d.backlogs {
		commands = r.send(commands, now)
	}
	commands = d.holder.Send(ctx, commands)
	return d.bindings.Send(ctx, commands)
}

func (d *Driver) noteRefusals() {
	d.role.NoteRefusal()
	for _, r := range d.backlogs {
		r.noteRefusal(time.Now())
	}
	d.holder.NoteRefusal()
	d.bindings.NoteRefusal()
}

// compose puts the sample together.
func (d *Driver) compose(at time.Time, held unacked.InFlight) *queue.Sample {
	s := &queue.Sample{
		At: at, Queues: make(map[string]queue.Depth, len(d.backlogs)),
		Unattributed: held.Unattributed, DiscoveryPending: d.bindings.Pending(),
	}
	for _, r := range d.backlogs {
		inFlight, scheduled := held.Depth(r.name, at)
		backlog := r.count(at)
		s.Queues[r.name] = queue.Depth{Backlog: backlog, InFlight: inFlight, Scheduled: scheduled, Oldest: r.next.age(backlog)}
	}
	return s
}
