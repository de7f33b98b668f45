package target

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/kubernetes"
)

// Watcher knows the targets of all HPAs of some namespaces that scale on a metric of
// ours, or ask to go to zero. Make it with NewWatcher. Its methods are safe for concurrent use; what they
// return is not changed afterwards, and the caller must not change it either.
type Watcher struct {
	clients kubernetes.Interface
	log     *slog.Logger
	wake    chan struct{} // holds one token: the namespaces have changed

	current atomic.Pointer[snapshot]

	mu     sync.Mutex // guards what follows, and who replaces current
	told   bool       // Watch was called
	wanted []string
	spaces map[string]*space
	shared map[scaled]bool // what several HPAs scale, and has been said
}

// snapshot is everything at one moment.
type snapshot struct {
	targets []Target // with metrics of ours, sorted
	optedIn []Target // that ask to go to zero, sorted
	changed chan struct{}
}

// NewWatcher makes a watcher that knows no namespace yet and asks for nothing before
// Run. It needs the rights to list and watch HorizontalPodAutoscalers.
func NewWatcher(clients kubernetes.Interface, log *slog.Logger) *Watcher {
	w := &Watcher{
		clients: clients, log: log, wake: make(chan struct{}, 1),
		spaces: map[string]*space{}, shared: map[scaled]bool{},
	}
	w.current.Store(&snapshot{changed: make(chan struct{})})
	return w
}

// Watch makes these the namespaces whose HPAs are watched, before or while Run runs.
// Namespaces that were watched already go on undisturbed; the targets of those that
// are no longer named are gone, those of new ones appear all at once. It does not
// block.
func (w *Watcher) Watch(namespaces []string) {
	wanted := slices.Compact(slices.Sorted(slices.Values(namespaces)))
	w.mu.Lock()
	w.told, w.wanted = true, wanted
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // Run will look anyway
	}
}

// Run watches until ctx is done and then returns nil. What the API server refuses is
// logged and tried again for as long. Call it once; it blocks.
func (w *Watcher) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		for _, s := range w.adjust(ctx) {
			running.Go(func() { s.run() })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
	}
}

// Synced tells whether every HPA of every namespace to watch is known, as of some
// moment since then. It is false before Watch was called. Without it, targets may be
// missing.
func (w *Watcher) Synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	unsynced := func(namespace string) bool { return w.spaces[namespace] == nil || !w.spaces[namespace].synced }
	return w.told && !slices.ContainsFunc(w.wanted, unsynced)
}

// All returns the targets of every namespace that are scaled on a metric of ours,
// sorted by namespace, kind, name and HPA. Several HPAs that scale the same are
// several targets.
func (w *Watcher) All() []Target { return w.current.Load().targets }

// OptedIn returns the targets of every namespace whose HPA asks for them to go to zero,
// sorted as All. Those with a mistake are among them, and with them HPAs that scale
// on no metric of ours and are not in All.
func (w *Watcher) OptedIn() []Target { return w.current.Load().optedIn }

// Targets returns those of All that are in a namespace.
func (w *Watcher) Targets(namespace string) []Target {
	all := w.All()
	from, _ := slices.BinarySearchFunc(all, namespace, func(t Target, namespace string) int {
		return cmp.Compare(t.Namespace, namespace)
	})
	to := from
	for to < len(all) && all[to].Namespace == namespace {
		to++
	}
	return all[from:to:to]
}

// Changed returns a channel that is closed at the next change of what All, Targets,
// OptedIn or Synced return. To miss none, take the channel first and read then.
func (w *Watcher) Changed() <-chan struct{} { return w.current.Load().changed }

// adjust ends the watches of namespaces that are not wanted any more and returns
// those that have to run now.
func (w *Watcher) adjust(ctx context.Context) []*space {
	w.mu.Lock()
	defer w.mu.Unlock()
	for namespace, s := range w.spaces {
		if !slices.Contains(w.wanted, namespace) {
			s.stop()
			delete(w.spaces, namespace)
		}
	}
	var begun []*space
	for _, namespace := range w.wanted {
		if w.spaces[namespace] == nil {
			s := newSpace(ctx, w, namespace)
			w.spaces[namespace] = s
			begun = append(begun, s)
		}
	}
	w.publish()
	return begun
}

// update changes what is known of a namespace, and tells of it if change says that
// anything was. A namespace that is no longer watched stays as it is.
func (w *Watcher) update(s *space, change func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spaces[s.namespace] == s && change() && s.synced {
		w.publish()
	}
}

// publish puts a new snapshot in place of the current one. w.mu is held.
func (w *Watcher) publish() {
	var all []Target
	for _, s := range w.spaces {
		if !s.synced {
			continue
		}
		for _, t := range s.targets {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, compare)
	w.heedShared(all)
	next := &snapshot{changed: make(chan struct{})}
	for _, t := range all {
		if len(t.Metrics) > 0 {
			next.targets = append(next.targets, t)
		}
		if t.Zero.Wanted {
			next.optedIn = append(next.optedIn, t)
		}
	}
	before := w.current.Swap(next)
	close(before.changed)
}

// heedShared logs what more than one HPA scales, once, and makes it a mistake to go
// to zero there. They are all kept: it is the HPA controller that refuses to scale
// then (condition AmbiguousSelector), not us.
func (w *Watcher) heedShared(sorted []Target) {
	known := w.shared
	w.shared = map[scaled]bool{}
	for _, group := range shared(sorted) {
		refuseShared(sorted, group)
		first, second := sorted[group[0]], sorted[group[1]]
		if w.shared[first.scaled()] = true; !known[first.scaled()] {
			w.log.Warn("Two HorizontalPodAutoscalers scale one target; give it one with both metrics",
				"target", first.String(), "hpa", first.HPA, "other", second.HPA)
		}
	}
}

func compare(a, b Target) int {
	return cmp.Or(
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.HPA, b.HPA),
	)
}
