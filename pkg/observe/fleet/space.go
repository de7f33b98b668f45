package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet/internal/slim"
)

// The indices of pods.
const (
	byFleet = "fleet"
	byHost  = "host"
)

// space is a namespace that is watched.
type space struct {
	namespace string
	now       func() time.Time
	log       *slog.Logger

	pods, deployments, sets cache.SharedIndexInformer
	stop                    func()
	telling                 sync.WaitGroup // see notify

	mu        sync.Mutex
	restarted map[types.UID]time.Time
	failure   error // why the latest attempt to watch failed, until all is known
}

// newSpace begins to watch a namespace. Changed is told of changes of scales, if it is
// not nil.
func newSpace(ctx context.Context, clients kubernetes.Interface, namespace string, now func() time.Time, changed func(Ref), log *slog.Logger) *space {
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(namespace), informers.WithTransform(slim.Down))
	s := &space{
		namespace: namespace, now: now, log: log.With("namespace", namespace),
		pods: factory.Core().V1().Pods().Informer(), deployments: factory.Apps().V1().Deployments().Informer(),
		sets: factory.Apps().V1().StatefulSets().Informer(), restarted: map[types.UID]time.Time{},
	}
	s.prepare()
	ctx, cancel := context.WithCancel(ctx)
	if changed != nil {
		s.notify(ctx, changed)
	}
	factory.StartWithContext(ctx)
	s.stop = func() {
		cancel()
		factory.Shutdown()
		s.telling.Wait()
	}
	return s
}

// end stops the watch and waits until it has.
func (s *space) end() { s.stop() }

// prepare adds indices and handlers, which cannot fail before the informers run.
func (s *space) prepare() {
	_ = s.pods.AddIndexers(cache.Indexers{
		byFleet: func(object any) ([]string, error) {
			if ref, ok := ownerOf(object.(*corev1.Pod)); ok {
				return []string{ref.String()}, nil
			}
			return nil, nil
		},
		byHost: func(object any) ([]string, error) { return []string{hostOf(object.(*corev1.Pod))}, nil },
	})
	_, _ = s.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: s.noteRestart, DeleteFunc: s.forget})
	for what, informer := range map[string]cache.SharedIndexInformer{"pods": s.pods, "deployments": s.deployments, "statefulsets": s.sets} {
		_ = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { s.fail(what, err) })
	}
}

// fail remembers why something cannot be watched, and logs it when it begins.
func (s *space) fail(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil && !s.synced() {
		s.log.Warn("Cannot watch the workers' pods; how many workers are busy is unknown", "resource", what, "error", err)
	}
	s.failure = fmt.Errorf("watch %s: %w", what, err)
}

// known returns nil once everything was listed, else why it was not.
func (s *space) known() error {
	if s.synced() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure
	}
	return errors.New("they have not been listed yet")
}

func (s *space) synced() bool {
	return s.pods.HasSynced() && s.deployments.HasSynced() && s.sets.HasSynced()
}

// noteRestart remembers when a container was seen to have been started again, by
// our own clock, which is that of the workers' heartbeats too.
func (s *space) noteRestart(before, after any) {
	old, ok := before.(*corev1.Pod)
	p, isPod := after.(*corev1.Pod)
	if !ok || !isPod || old.UID != p.UID || restartsOf(old) == restartsOf(p) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarted[p.UID] = s.now()
}

func (s *space) forget(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if p, ok := object.(*corev1.Pod); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.restarted, p.UID)
	}
}

func (s *space) restartedAt(uid types.UID) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarted[uid]
}

// podsOf returns the pods of a fleet that have not ended.
func (s *space) podsOf(ref Ref) []*corev1.Pod { return s.lookUp(byFleet, ref.String()) }

// sharing is how many pods that have not ended have a host name.
func (s *space) sharing(host string) int { return len(s.lookUp(byHost, host)) }

func (s *space) lookUp(index, value string) []*corev1.Pod {
	objects, _ := s.pods.GetIndexer().ByIndex(index, value) // fails for an unknown index alone
	pods := make([]*corev1.Pod, 0, len(objects))
	for _, object := range objects {
		if p := object.(*corev1.Pod); !hasEnded(p) {
			pods = append(pods, p)
		}
	}
	return pods
}

// selected returns the pods that a selector chooses, of those that have not ended. It
// looks at each pod of the namespace.
func (s *space) selected(selector labels.Selector) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, object := range s.pods.GetIndexer().List() {
		if p := object.(*corev1.Pod); !hasEnded(p) && selector.Matches(labels.Set(p.Labels)) {
			pods = append(pods, p)
		}
	}
	return pods
}

// owner returns the Deployment or StatefulSet, if it exists.
func (s *space) owner(ref Ref) (object any, exists bool) {
	if ref.Kind != Deployment && ref.Kind != StatefulSet {
		return nil, false
	}
	object, exists, _ = s.owners(ref.Kind).GetByKey(s.namespace + "/" + ref.Name)
	return object, exists
}

func (s *space) owners(kind Kind) cache.Indexer {
	if kind == StatefulSet {
		return s.sets.GetIndexer()
	}
	return s.deployments.GetIndexer()
}

// refs returns every Deployment and StatefulSet, sorted.
func (s *space) refs() []Ref {
	var refs []Ref
	for _, kind := range []Kind{Deployment, StatefulSet} {
		for _, key := range slices.SortedFunc(slices.Values(s.owners(kind).ListKeys()), strings.Compare) {
			refs = append(refs, s.refOf(kind, key))
		}
	}
	return refs
}

// refOf names an object by its key.
func (s *space) refOf(kind Kind, key string) Ref {
	_, name, _ := strings.Cut(key, "/")
	return Ref{s.namespace, kind, name}
}

// firstOrdinal is the number of a StatefulSet's first pod.
func (s *space) firstOrdinal(ref Ref) int {
	object, _ := s.owner(ref)
	if set, ok := object.(*appsv1.StatefulSet); ok && set.Spec.Ordinals != nil {
		return int(set.Spec.Ordinals.Start)
	}
	return 0
}
