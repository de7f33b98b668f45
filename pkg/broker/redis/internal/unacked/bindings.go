package unacked

import (
	"context"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// scanCount is the COUNT of one SCAN: about 0.5 ms of the server. A
	// keyspace of a million keys, most of them results, is walked once in 500
	// samples.
	scanCount = 2000
	// maxTables and maxMembers bound the binding tables that one exchange
	// reads; at least one is read.
	maxTables  = 100
	maxMembers = 2000
	// maxExchanges bounds the binding tables that are known.
	maxExchanges = 50_000
)

// Bindings knows the binding tables of a broker: those found by scanning, where
// queues are to be discovered, and those that messages in flight name.
type Bindings struct {
	keys     celery.Keys
	discover bool
	tables   map[string]*table // by exchange
	// order holds the exchanges whose tables are read in turn; next counts the
	// turns.
	order []string
	next  int
	// unread holds the exchanges whose table was never read; the exchange under
	// way reads the first ones of them.
	unread []string
	first  int
	cursor uint64
	// scanned is true once every key was passed.
	scanned bool
	refused error
	found   []string

	scan  *goredis.ScanCmd
	reads []tableRead
}

// table is one binding table as last read.
type table struct {
	size     int
	bindings []celery.Binding
	err      error
}

type tableRead struct {
	exchange string
	members  *goredis.StringSliceCmd
}

// NewBindings makes one that knows nothing yet. With discover, it looks for all
// tables there are.
func NewBindings(keys celery.Keys, discover bool) *Bindings {
	return &Bindings{keys: keys, discover: discover, tables: map[string]*table{}}
}

// Pending reports whether queues may not have been found yet.
func (b *Bindings) Pending() bool {
	return b.discover && (!b.scanned || len(b.unread) > 0)
}

// Restart scans anew, on another server. What is known stays known.
func (b *Bindings) Restart() { b.cursor = 0 }

// Begin starts a sample: what was refused in the one before may be allowed now.
func (b *Bindings) Begin() { b.refused = nil }

// want adds an exchange. It reports whether its table is (or will be) known.
func (b *Bindings) want(exchange string) bool {
	if b.tables[exchange] != nil {
		return true
	}
	if len(b.tables) >= maxExchanges {
		return false
	}
	b.tables[exchange] = &table{}
	b.unread = append(b.unread, exchange)
	return true
}

// Send adds the commands of one exchange: a step of the scan, and a few tables.
func (b *Bindings) Send(ctx context.Context, commands []goredis.Cmder) []goredis.Cmder {
	b.scan, b.reads, b.first = nil, nil, 0
	if b.refused != nil {
		return commands
	}
	if b.discover {
		b.scan = goredis.NewScanCmd(ctx, nil, "scan", b.cursor, "match", b.keys.BindingPattern(), "count", scanCount)
		commands = append(commands, b.scan)
	}
	return b.sendReads(ctx, commands)
}

// sendReads adds the reads of tables: first those never read, then in turn.
func (b *Bindings) sendReads(ctx context.Context, commands []goredis.Cmder) []goredis.Cmder {
	for members := 0; len(b.reads) < maxTables && members < maxMembers; {
		exchange, ok := b.choose()
		if !ok {
			break
		}
		members += b.tables[exchange].size
		read := tableRead{exchange, goredis.NewStringSliceCmd(ctx, "smembers", b.keys.Binding(exchange))}
		b.reads = append(b.reads, read)
		commands = append(commands, read.members)
	}
	return commands
}

// choose returns the exchange to read next, none twice in one exchange.
func (b *Bindings) choose() (string, bool) {
	if b.first < len(b.unread) {
		b.first++
		return b.unread[b.first-1], true
	}
	if len(b.reads) >= len(b.order) {
		return "", false
	}
	b.next++
	return b.order[b.next%len(b.order)], true
}

// NoteRefusal is to be called after the server refused a transaction.
func (b *Bindings) NoteRefusal() {
	if b.scan != nil && server.IsRefusal(b.scan.Err()) {
		b.refused = b.scan.Err()
	}
	for _, read := range b.reads {
		if server.IsRefusal(read.members.Err()) {
			b.refused = read.members.Err()
		}
	}
}

// Absorb takes in what the exchange brought.
func (b *Bindings) Absorb() error {
	if b.discover && b.refused != nil {
		return fmt.Errorf("discover queues: %w", b.refused)
	}
	if err := b.absorbScan(); err != nil {
		return err
	}
	for _, read := range b.reads {
		b.absorbTable(read)
	}
	b.order = append(b.order, b.unread[:b.first]...)
	b.unread, b.first = b.unread[b.first:], 0
	return nil
}

func (b *Bindings) absorbScan() error {
	if b.scan == nil {
		return nil
	}
	if err := b.scan.Err(); err != nil {
		return fmt.Errorf("discover queues: %w", err)
	}
	keys, cursor := b.scan.Val()
	for _, key := range keys {
		exchange, ok := b.keys.Exchange(key)
		if ok && !celery.IsInternalExchange(exchange) && !b.want(exchange) {
			return fmt.Errorf("discover queues: more than %d exchanges: list the queues in spec.queues", maxExchanges)
		}
	}
	b.cursor = cursor
	b.scanned = b.scanned || cursor == 0
	return nil
}

// absorbTable keeps what was known of a table that is gone: kombu sweeps tables
// without consumers away, while messages of theirs may still be in flight. A
// member that cannot be read is left out; if a message needs it, the message is
// unattributed.
func (b *Bindings) absorbTable(read tableRead) {
	t := b.tables[read.exchange]
	members, err := read.members.Result()
	t.err = err
	if err != nil || len(members) == 0 {
		return
	}
	t.size, t.bindings = len(members), nil
	for _, member := range members {
		binding, err := b.keys.ParseBinding(member)
		if err != nil {
			t.err = err
			continue
		}
		t.bindings = append(t.bindings, binding)
		if b.discover && !celery.IsInternalQueue(binding.Queue) {
			b.found = append(b.found, binding.Queue)
		}
	}
}

// TakeFound returns the queues of the tables that were read since the last call,
// without Celery's internal ones: none, unless queues are to be discovered.
func (b *Bindings) TakeFound() []string {
	found := b.found
	b.found = nil
	return found
}

// ReadNamed reads the tables of exchanges that messages in flight name and that
// were not known before. An error is one of the connection, or of the
// permission to discover.
func (b *Bindings) ReadNamed(ctx context.Context, e server.Endpoint, h *Holder) error {
	missing := false
	for r := range h.routes.ids {
		named := r.exchange != "" && !celery.IsInternalExchange(r.exchange)
		if named && b.tables[r.exchange] == nil {
			missing = b.want(r.exchange) || missing
		}
	}
	for missing && len(b.unread) > 0 && b.refused == nil {
		if err := b.Step(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// Step reads a part of the tables in an exchange of its own. The error is as
// that of ReadNamed.
func (b *Bindings) Step(ctx context.Context, e server.Endpoint) error {
	if err := e.Exec(ctx, false, b.Send(ctx, nil)); err != nil {
		return err
	}
	return b.Absorb()
}

// errNoBinding says that no queue of an exchange takes a message.
var errNoBinding = errors.New("no binding matches its routing key: start a worker that declares the queue, or bind it")

// resolve returns the queues that a route may belong to: none, without an
// error, for Celery's own messages.
func (b *Bindings) resolve(r route) ([]string, error) {
	if r.exchange == "" {
		return []string{r.routingKey}, nil
	}
	if celery.IsInternalExchange(r.exchange) {
		return nil, nil
	}
	t := b.tables[r.exchange]
	if t == nil {
		return nil, errNoBinding
	}
	var queues []string
	for _, binding := range t.bindings {
		if binding.Matches(r.routingKey) {
			queues = append(queues, binding.Queue)
		}
	}
	if len(queues) == 0 {
		return nil, errors.Join(errNoBinding, t.err, b.refused)
	}
	return queues, nil
}
