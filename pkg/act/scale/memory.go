package scale

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	// maxAge is for how long a scale is good that was asked for.
	maxAge = time.Second
	// forgetAfter is how long one is kept that nobody asks for any more.
	forgetAfter = time.Minute
)

// object names what is scaled, of which there may be several HPAs.
type object struct{ namespace, apiVersion, kind, name string }

func objectOf(t target.Target) object { return object{t.Namespace, t.APIVersion, t.Kind, t.Name} }

// memory is what was written and read lately. It is safe for concurrent use.
type memory struct {
	mu       sync.Mutex
	writes   map[object]write   // of what is watched
	readings map[object]reading // of everything else
	swept    time.Time
}

// write is what was written of an object that is watched, until the watch has seen it.
type write struct {
	scale zeroscaler.Scale
	// replaced are the resourceVersions that it has replaced: since each write goes
	// from the very one that was looked at to the next, the watch is behind for as
	// long as it shows one of them.
	replaced []string
}

// reading is the answer of the API server, or the failure to get one.
type reading struct {
	scale zeroscaler.Scale
	err   error
	at    time.Time // zero if it is not good any more
	// writes counts those that have ended, so that an answer on its way meanwhile is
	// known to be older.
	writes int
}

func newMemory() *memory {
	return &memory{writes: map[object]write{}, readings: map[object]reading{}, swept: time.Now()}
}

// watched returns what look shows, or what was written where look is behind. look must
// not block.
func (m *memory) watched(t target.Target, look func() (zeroscaler.Scale, error)) (zeroscaler.Scale, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shown, err := look()
	if err != nil {
		return shown, err
	}
	if w, ok := m.writes[objectOf(t)]; ok && slices.Contains(w.replaced, shown.ResourceVersion) {
		return w.scale, nil
	}
	delete(m.writes, objectOf(t))
	return shown, nil
}

// asked returns a reading that is fresh, or the result of ask, which may block. Where
// ctx is done that tells nothing of the target.
func (m *memory) asked(ctx context.Context, t target.Target, ask func() (zeroscaler.Scale, error)) (zeroscaler.Scale, error) {
	before := m.reading(t)
	if isFresh(before) {
		return before.scale, before.err
	}
	now := reading{at: time.Now(), writes: before.writes}
	now.scale, now.err = ask()
	if ctx.Err() != nil {
		return now.scale, now.err
	}
	return m.keep(t, now)
}

func (m *memory) reading(t target.Target) reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.readings[objectOf(t)]
}

func isFresh(r reading) bool { return !r.at.IsZero() && time.Since(r.at) < maxAge }

// keep remembers what was read, unless something was written meanwhile.
func (m *memory) keep(t target.Target, now reading) (zeroscaler.Scale, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	latest := m.readings[objectOf(t)]
	switch {
	case latest.writes == now.writes:
		m.readings[objectOf(t)] = now
	case isFresh(latest):
		return latest.scale, latest.err
	}
	return now.scale, now.err
}

// written remembers what was written in place of what was seen.
func (m *memory) written(t target.Target, seen, now zeroscaler.Scale) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !t.IsDeployment() && !t.IsStatefulSet() {
		m.readings[objectOf(t)] = reading{scale: now, at: time.Now(), writes: m.readings[objectOf(t)].writes + 1}
		return
	}
	if now.ResourceVersion != seen.ResourceVersion { // else nothing had to be changed
		replaced := append(m.writes[objectOf(t)].replaced, seen.ResourceVersion)
		m.writes[objectOf(t)] = write{now, replaced}
	}
}

// forget has the next reading made afresh: after a write that has failed nobody knows
// what holds.
func (m *memory) forget(t target.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.readings[objectOf(t)]; ok {
		m.readings[objectOf(t)] = reading{writes: r.writes + 1}
	}
}

// sweep drops readings that nobody has asked for lately. m.mu is held.
func (m *memory) sweep() {
	if time.Since(m.swept) < forgetAfter {
		return
	}
	m.swept = time.Now()
	for o, r := range m.readings {
		if time.Since(r.at) > forgetAfter {
			delete(m.readings, o)
		}
	}
}
