package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Lookout makes lines to a broker. It is for one caller at a time.
type Lookout struct {
	cfg       Config
	endpoints []server.Endpoint
	// current is the endpoint in use: the last one that worked.
	current int
}

// NewLookout checks the configuration, as New does, and connects to nothing. Of the
// Config it heeds what reaching the broker over AMQP takes, and Timeout. Its errors
// name no credential.
func NewLookout(cfg Config) (*Lookout, error) {
	cfg = cfg.withDefaults()
	endpoints, err := cfg.endpoints()
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", cfg.Ref, err)
	}
	return &Lookout{cfg: cfg, endpoints: endpoints}, nil
}

// Open connects, anew at each call: to the first server that lets it, beginning with
// the one that worked last, within the time-out. It needs no more than access to the
// virtual host. An error says which broker, at which address, why, and what to do.
func (l *Lookout) Open(ctx context.Context) (*LookoutLine, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	var failure error
	for range l.endpoints {
		e := l.endpoints[l.current]
		connection, err := e.DialAs(ctx, "celery-hpa lookout")
		if err == nil {
			return &LookoutLine{cfg: l.cfg, endpoint: e, connection: connection, refusals: refusals{}}, nil
		}
		if err = explain(l.cfg.Ref, e, err); failure != nil {
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

// Close is called once, after the last line was closed.
func (l *Lookout) Close() error { return nil }

// explain says what failed, where, why, and what to do about it.
func explain(ref queue.BrokerRef, e server.Endpoint, err error) error {
	hint := server.Hint(err)
	if hint != "" {
		hint = ": " + hint
	}
	return fmt.Errorf("look out for messages of broker %s at %s: %w%s", ref, e, err, hint)
}

// LookoutLine is a connection over which few queues are read often. When it has failed
// once, it is of no use any more. Read, Forget and Close are for one caller at a time.
type LookoutLine struct {
	cfg        Config
	endpoint   server.Endpoint
	connection *server.Connection
	refusals   refusals
}

// Tells is false: see Reason.
func (l *LookoutLine) Tells() bool { return false }

// Reason says why the broker does not tell of messages.
func (l *LookoutLine) Reason() error { return errNobodyTold }

// Read reads how many messages wait in each of these queues, over all priorities, in
// one exchange, and returns them in the order of the names. It blocks for the
// configured time-out at most.
//
// A queue that the broker does not have is unknown, like every one that it refuses to
// tell of. It is asked about again after a second, then after two, and in the end once
// a minute: until then it is not noticed that it was made. A queue that does not answer
// is unknown, too, and harms no other. A quorum queue without a leader has zero: it
// takes another source to tell that.
//
// An error says which broker, at which address, why, and what to do, and that the
// line is of no use any more.
func (l *LookoutLine) Read(ctx context.Context, queues []string) ([]queue.Count, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	at := time.Now()
	names, doubtful := l.refusals.toAsk(queues, at)
	answers, err := l.connection.Ready(ctx, names, doubtful)
	if err != nil {
		return nil, explain(l.cfg.Ref, l.endpoint, err)
	}
	counts := make([]queue.Count, len(queues))
	for i, name := range queues {
		if len(names) > 0 && names[0] == name {
			counts[i] = l.count(name, answers[0], at)
			names, answers = names[1:], answers[1:]
			continue
		}
		counts[i] = queue.Unknown(l.refusals[name].why)
	}
	return counts, nil
}

// count is what an answer says, which is remembered if it is a refusal.
func (l *LookoutLine) count(name string, a server.Answer, at time.Time) queue.Count {
	if a.Err == nil {
		delete(l.refusals, name)
		return queue.Known(a.Ready, at)
	}
	why := fmt.Errorf("queue %q: %w", name, a.Err)
	if !errors.Is(a.Err, server.ErrUnanswered) {
		l.refusals.add(name, why, at)
	}
	return queue.Unknown(why)
}

// Forget has the line know no more why a queue could not be read.
func (l *LookoutLine) Forget(queues []string) {
	for _, name := range queues {
		delete(l.refusals, name)
	}
}

var (
	errNobodyTold = errors.New("RabbitMQ tells nobody of messages but those who take them")
	// errToldOfNothing says that Told is of no use.
	errToldOfNothing = errors.New("the line tells of no messages")
)

// Told returns an error at once: the broker tells of nothing.
func (l *LookoutLine) Told(context.Context) ([]string, error) {
	return nil, fmt.Errorf("%w: %w", errToldOfNothing, errNobodyTold)
}

// Close ends the connection. It blocks until it is closed, a second at most.
func (l *LookoutLine) Close() error { return l.connection.Close() }

const (
	// firstPause and lastPause bound the pause before a queue is asked about again that
	// the broker refuses to tell of, which doubles. Each refusal costs the broker a
	// channel, and two lines in its log (rabbit_channel.erl, log of a channel error).
	firstPause = time.Second
	lastPause  = time.Minute
	// mostAgain bounds how many of them are in one Read.
	mostAgain = 16
)

// refusal is that the broker refuses to tell of a queue.
type refusal struct {
	why   error
	until time.Time // when to ask again
	pause time.Duration
}

// refusals are those that have not been answered otherwise since.
type refusals map[string]refusal

// add takes in a refusal.
func (r refusals) add(name string, why error, now time.Time) {
	pause := min(max(2*r[name].pause, firstPause), lastPause)
	r[name] = refusal{why: why, until: now.Add(pause), pause: pause}
}

// toAsk is the queues to be asked about now, in their order, and which of them were
// refused the last time.
func (r refusals) toAsk(queues []string, now time.Time) (names []string, again map[string]bool) {
	if len(r) == 0 {
		return queues, nil
	}
	again = map[string]bool{}
	for _, name := range r.due(queues, now) {
		again[name] = true
	}
	for _, name := range queues {
		if _, refused := r[name]; !refused || again[name] {
			names = append(names, name)
		}
	}
	return names, again
}

// due is the queues to be asked about again, those first that have been due for the
// longest time.
func (r refusals) due(queues []string, now time.Time) []string {
	var due []string
	for _, name := range queues {
		if refused, is := r[name]; is && !now.Before(refused.until) {
			due = append(due, name)
		}
	}
	slices.SortStableFunc(due, func(a, b string) int { return r[a].until.Compare(r[b].until) })
	return due[:min(len(due), mostAgain)]
}
