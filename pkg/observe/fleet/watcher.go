package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
)

// Why nothing is said of a fleet.
var (
	// ErrNoFleet says that there is no such Deployment or StatefulSet.
	ErrNoFleet = errors.New("no such fleet")
	// ErrNotWatched says that the pods of a namespace are not known.
	ErrNotWatched = errors.New("the pods of the namespace are not known")
)

// Workers gives the workers of a namespace's brokers that were heard on a host.
type Workers interface {
	OnHost(namespace, host string) []workers.Worker
}

// Watcher knows the fleets of some namespaces. Its methods are safe for concurrent
// use; all but Watch and Wait return at once.
type Watcher struct {
	clients kubernetes.Interface
	workers Workers
	now     func() time.Time
	changed func(Ref) // see Notify
	log     *slog.Logger

	mu     sync.RWMutex
	spaces map[string]*space
	heard  map[Ref]bool
}

// NewWatcher makes a watcher of no namespace. The clients need the right to list
// and watch pods, deployments and statefulsets.
func NewWatcher(clients kubernetes.Interface, heard Workers, log *slog.Logger) *Watcher {
	return &Watcher{
		clients: clients, workers: heard, now: time.Now, log: log,
		spaces: map[string]*space{}, heard: map[Ref]bool{},
	}
}

// Watch makes the watcher watch exactly these namespaces, until ctx is done at the
// latest. It does not wait until what is there is known.
func (w *Watcher) Watch(ctx context.Context, namespaces []string) {
	for _, s := range w.leave(namespaces) {
		s.end()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, namespace := range namespaces {
		if w.spaces[namespace] == nil {
			w.spaces[namespace] = newSpace(ctx, w.clients, namespace, w.now, w.changed, w.log)
		}
	}
}

// leave forgets all but these namespaces and returns what is to be ended: without the
// lock, since who is told of a change may look at the watcher meanwhile.
func (w *Watcher) leave(kept []string) []*space {
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []*space
	for namespace, s := range w.spaces {
		if !slices.Contains(kept, namespace) {
			left = append(left, s)
			delete(w.spaces, namespace)
		}
	}
	return left
}

// Wait blocks until no watch goes on, which needs the context given to Watch to be
// done.
func (w *Watcher) Wait() {
	w.mu.RLock()
	spaces := slices.Collect(maps.Values(w.spaces))
	w.mu.RUnlock()
	for _, s := range spaces {
		s.end()
	}
}

// Fleet returns a Deployment or StatefulSet with its pods as they are now. The error
// wraps ErrNoFleet or ErrNotWatched.
func (w *Watcher) Fleet(ref Ref) (Fleet, error) {
	s, err := w.space(ref.Namespace)
	if err != nil {
		return Fleet{}, err
	}
	if _, exists := s.owner(ref); !exists {
		return Fleet{}, fmt.Errorf("%w: %s", ErrNoFleet, ref)
	}
	return w.fleet(s, ref, s.podsOf(ref)), nil
}

// Selected returns the pods of a namespace that a selector chooses, as a fleet of kind
// Pods: workers of something else than a Deployment or StatefulSet. It looks at each pod
// of the namespace. The error wraps ErrNotWatched, or ErrNoFleet for a selector that
// chooses nothing, or everything.
func (w *Watcher) Selected(namespace string, selector labels.Selector) (Fleet, error) {
	s, err := w.space(namespace)
	if err != nil {
		return Fleet{}, err
	}
	if !isChoosing(selector) {
		return Fleet{}, fmt.Errorf("%w: what is scaled has no selector that tells its pods (status.selector of its scale), and those of namespace %s are not all workers", ErrNoFleet, namespace)
	}
	return w.fleet(s, Ref{namespace, Pods, selector.String()}, s.selected(selector)), nil
}

// isChoosing reports whether a selector chooses something, and not everything.
func isChoosing(selector labels.Selector) bool {
	if selector == nil {
		return false
	}
	requirements, choosing := selector.Requirements()
	return choosing && len(requirements) > 0
}

// fleet joins pods with their workers.
func (w *Watcher) fleet(s *space, ref Ref, pods []*corev1.Pod) Fleet {
	f := Fleet{Ref: ref}
	start := s.firstOrdinal(ref)
	for _, p := range pods {
		m, heard := w.member(s, p, ref, start)
		f.Members = append(f.Members, m)
		f.Heard = f.Heard || heard
	}
	slices.SortFunc(f.Members, func(a, b Member) int { return strings.Compare(a.Pod, b.Pod) })
	f.Heard = w.everHeard(ref, f.Heard)
	return f
}

// Fleets returns the fleets of a namespace of which a worker was ever heard, sorted
// by kind and name. None is returned of a namespace whose pods are not known.
func (w *Watcher) Fleets(namespace string) []Fleet {
	s, err := w.space(namespace)
	if err != nil {
		return nil
	}
	var fleets []Fleet
	for _, ref := range s.refs() {
		if f, err := w.Fleet(ref); err == nil && f.Heard {
			fleets = append(fleets, f)
		}
	}
	return fleets
}

// Names returns the names of all Deployments or StatefulSets of a namespace.
func (w *Watcher) Names(namespace string, kind Kind) []string {
	s, err := w.space(namespace)
	if err != nil {
		return nil
	}
	var names []string
	for _, ref := range s.refs() {
		if ref.Kind == kind {
			names = append(names, ref.Name)
		}
	}
	return names
}

// HasHost reports whether a pod of the namespace has a host name; it may have where
// that is not known.
func (w *Watcher) HasHost(namespace, host string) bool {
	has, known := w.HasPod(namespace, host)
	return has || !known
}

// HasPod reports whether a pod of the namespace has a host name; known is false where
// the pods are not known.
func (w *Watcher) HasPod(namespace, host string) (has, known bool) {
	s, err := w.space(namespace)
	if err != nil {
		return false, false
	}
	return s.sharing(host) > 0, true
}

// OwnerOf returns the fleet of the pod that has a host name, if there is one.
func (w *Watcher) OwnerOf(namespace, host string) (Ref, bool) {
	s, err := w.space(namespace)
	if err != nil {
		return Ref{}, false
	}
	for _, p := range s.lookUp(byHost, host) {
		if ref, ok := ownerOf(p); ok {
			return ref, true
		}
	}
	return Ref{}, false
}

// space is what is known of a namespace.
func (w *Watcher) space(namespace string) (*space, error) {
	w.mu.RLock()
	s := w.spaces[namespace]
	w.mu.RUnlock()
	if s == nil {
		return nil, fmt.Errorf("%w: namespace %s has no CeleryBroker", ErrNotWatched, namespace)
	}
	if err := s.known(); err != nil {
		return nil, fmt.Errorf("%w: namespace %s: %w", ErrNotWatched, namespace, err)
	}
	return s, nil
}

// member is a pod with its workers, and whether one was heard.
func (w *Watcher) member(s *space, p *corev1.Pod, ref Ref, start int) (Member, bool) {
	host := hostOf(p)
	heard := w.workers.OnHost(p.Namespace, host)
	v := judgePod(pod{
		ready: isReady(p), terminating: p.DeletionTimestamp != nil,
		restartedAt: s.restartedAt(p.UID), alone: len(p.Spec.Containers) == 1, shared: s.sharing(host),
	}, heard, w.now())
	m := Member{
		Pod: p.Name, UID: p.UID, Host: host, Ordinal: -1, Ready: isReady(p), Terminating: p.DeletionTimestamp != nil,
		State: v.State, Reason: v.Reason, Since: v.Since, Active: v.Active, Slots: v.Slots, Begun: v.Begun,
		Annotations: p.Annotations,
	}
	if ref.Kind == StatefulSet {
		m.Ordinal = ordinalOf(p.Name, ref.Name, start)
	}
	return m, len(heard) > 0
}

// everHeard remembers that a worker of a fleet was heard: a fleet at zero is still
// one.
func (w *Watcher) everHeard(ref Ref, now bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now {
		w.heard[ref] = true
	}
	return w.heard[ref]
}
