package lookout

import (
	"maps"
	"slices"
	"sync"
)

// mailbox gathers the names of queues that are to be read as soon as possible.
type mailbox struct {
	// arrived holds something when the mailbox is no longer empty.
	arrived chan struct{}

	mu    sync.Mutex
	names map[string]bool
	all   bool
}

func newMailbox() *mailbox {
	return &mailbox{arrived: make(chan struct{}, 1), names: map[string]bool{}}
}

// put adds names; nil stands for all.
func (m *mailbox) put(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = m.all || names == nil
	for _, name := range names {
		m.names[name] = true
	}
	if !m.all && len(m.names) == 0 {
		return
	}
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

func (m *mailbox) isEmpty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.all && len(m.names) == 0
}

// take empties the mailbox and returns those of the set that were in it, sorted as
// the set is.
func (m *mailbox) take(set []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names, all := m.names, m.all
	m.names, m.all = map[string]bool{}, false
	if all {
		return set
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool {
		_, found := slices.BinarySearch(set, name)
		return !found
	})
}

// without is what of a sorted list another lacks, sorted.
func without(list, other []string) []string {
	var rest []string
	for _, name := range list {
		for len(other) > 0 && other[0] < name {
			other = other[1:]
		}
		if len(other) == 0 || other[0] != name {
			rest = append(rest, name)
		}
	}
	return rest
}
