package tracking

import (
	"maps"
	"slices"
	"sync"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// notices gathers which queues were written. It is safe for concurrent use.
type notices struct {
	keys celery.Keys
	// news holds something while there may be what was not taken yet.
	news chan struct{}

	mu      sync.Mutex
	awaited map[string]struct{} // the queues that were read
	written map[string]struct{} // of those
	all     bool                // were written
}

func newNotices(keys celery.Keys) *notices {
	return &notices{
		keys: keys, news: make(chan struct{}, 1),
		awaited: map[string]struct{}{}, written: map[string]struct{}{},
	}
}

// await is called before queues are read.
func (n *notices) await(queues []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range queues {
		n.awaited[q] = struct{}{}
	}
}

func (n *notices) forget(queues []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range queues {
		delete(n.awaited, q)
		delete(n.written, q)
	}
}

// add takes in keys that were written; nil stands for all.
func (n *notices) add(keys []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = n.all || keys == nil
	for _, key := range keys {
		for _, q := range n.keys.QueuesOf(key) {
			if _, ok := n.awaited[q]; ok {
				n.written[q] = struct{}{}
			}
		}
	}
	if !n.all && len(n.written) == 0 {
		return
	}
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// take returns the queues that were written since it was last called, or that all were.
func (n *notices) take() (queues []string, all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.all {
		queues = slices.Collect(maps.Keys(n.written))
	}
	all, n.all = n.all, false
	clear(n.written)
	return queues, all
}
