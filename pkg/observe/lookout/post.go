package lookout

import (
	"slices"
	"sync"
	"time"
)

// coverAge is how old the last read of all queues may be where the broker does not
// tell of writes. Samples are taken about as often.
const coverAge = time.Second

// post is where a broker's loop learns which queues to watch, and says how far it has
// got. It outlives the loop where the broker has changed.
type post struct {
	// changed holds something while the loop has not seen the latest set.
	changed chan struct{}

	mu     sync.Mutex
	given  []string // what was last asked for
	set    set
	covers coverage
	untold error // why the broker does not tell
}

// set is the queues to watch, at one moment.
type set struct {
	names  []string // sorted, each once; never changed
	number int      // counts the sets before it
}

// coverage says which set has been read completely on the line that is open; the zero
// value that none has.
type coverage struct {
	open    bool
	number  int       // of the set
	telling bool      // whether the broker tells of writes
	at      time.Time // when all were last read, where it does not
}

func newPost() *post { return &post{changed: make(chan struct{}, 1)} }

// watch replaces the set. Mostly nothing has changed, and mostly the order is the same.
func (p *post) watch(queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(queues, p.given) {
		return
	}
	p.given = slices.Clone(queues)
	names := slices.Compact(slices.Sorted(slices.Values(queues)))
	if slices.Equal(names, p.set.names) {
		return
	}
	p.set = set{names: names, number: p.set.number + 1}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// current is the set to watch now.
func (p *post) current() set {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set
}

// report replaces what is covered.
func (p *post) report(c coverage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.covers = c
}

// untell notes why the broker does not tell of messages, nil if it does.
func (p *post) untell(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.untold = reason
}

func (p *post) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.untold
}

func (p *post) isCovered(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.covers
	return c.open && c.number == p.set.number && (c.telling || now.Sub(c.at) <= coverAge)
}
