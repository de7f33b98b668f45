package perbroker

import (
	"context"
	"sync"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Loop does something about one broker, again and again.
type Loop interface {
	// Broker is which one. Fingerprint changes whenever anything about it does.
	Broker() queue.BrokerRef
	Fingerprint() string
	// Begin is called before Run, within Apply.
	Begin()
	// Run blocks until ctx is done.
	Run(ctx context.Context)
	// Ended is called within Apply, after Run has returned because the broker is
	// gone or has changed; not when the program stops.
	Ended()
}

// Group runs one loop for each broker that it was last told of. Its methods are
// safe for concurrent use. The zero value is a group without brokers.
type Group[L Loop] struct {
	mu     sync.Mutex
	active map[queue.BrokerRef]*member[L]
}

// member is a running loop and the means to end it.
type member[L Loop] struct {
	loop L
	stop context.CancelFunc
	done chan struct{}
}

// Apply makes the group run loops like these: those of brokers that are gone or
// changed end, those of new or changed ones begin, and all others go on
// undisturbed in place of the ones given. It blocks until the ended loops have
// returned. Loops run until ctx is done at the latest; see Wait.
func (g *Group[L]) Apply(ctx context.Context, loops []L) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wanted := make(map[queue.BrokerRef]string, len(loops))
	for _, loop := range loops {
		wanted[loop.Broker()] = loop.Fingerprint()
	}
	g.end(wanted)
	for _, loop := range loops {
		if g.active[loop.Broker()] == nil {
			g.begin(ctx, loop)
		}
	}
}

// Wait blocks until every loop has returned, which needs the context given to
// Apply to be done.
func (g *Group[L]) Wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.active {
		<-m.done
	}
}

// Each calls do with every running loop.
func (g *Group[L]) Each(do func(L)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.active {
		do(m.loop)
	}
}

// end stops the loops that are not wanted, waits for them, and says so to them.
func (g *Group[L]) end(wanted map[queue.BrokerRef]string) {
	var ended []*member[L]
	for ref, m := range g.active {
		if fingerprint, ok := wanted[ref]; !ok || fingerprint != m.loop.Fingerprint() {
			m.stop()
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		<-m.done
		m.loop.Ended()
		delete(g.active, m.loop.Broker())
	}
}

func (g *Group[L]) begin(ctx context.Context, loop L) {
	ctx, stop := context.WithCancel(ctx)
	m := &member[L]{loop: loop, stop: stop, done: make(chan struct{})}
	if g.active == nil {
		g.active = map[queue.BrokerRef]*member[L]{}
	}
	g.active[loop.Broker()] = m
	loop.Begin()
	go func() {
		defer close(m.done)
		loop.Run(ctx)
	}()
}
