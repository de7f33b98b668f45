package brokerresource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

const (
	// secretsInterval is the time from one reading of the Secrets to the next.
	secretsInterval = 10 * time.Second
	// settling is how long a change waits for those that come with it, so that a
	// hundred CeleryBrokers are one change.
	settling = 50 * time.Millisecond
)

// Resource is where CeleryBrokers are.
func Resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: v1alpha1.Plural}
}

// Found is a CeleryBroker as it is now, in use or not.
type Found struct {
	// CeleryBroker is the object, with the defaults of its spec.
	v1alpha1.CeleryBroker
	// Reason is one of v1alpha1's for a condition, and Err says why the object cannot
	// be used as it is now; both empty if it can.
	Reason string
	Err    error
}

// Watcher keeps the brokers of a cluster's CeleryBrokers up to date. Make it with
// NewWatcher. Its methods are safe for concurrent use; what they return must not be
// changed.
type Watcher struct {
	objects  cache.SharedInformer
	secrets  *secrets
	resolver *brokers.Resolver
	before   func() []brokers.Broker
	log      *slog.Logger
	changed  chan struct{} // holds one token: look again

	current atomic.Pointer[state]
	seen    map[types.UID]int64 // the generation of each object at the last look

	mu       sync.Mutex // guards what follows
	watchErr error      // why the objects cannot be watched
	absent   bool       // the API server knows no CeleryBrokers
	reported string     // what was logged last
}

// state is everything at one moment.
type state struct {
	brokers []brokers.Broker // in use
	found   []Found
	synced  bool
}

// NewWatcher makes a watcher that asks for nothing before Run. Before returns brokers
// that are known from elsewhere and go first: a CeleryBroker of the same name, or that
// reads the same queues for the same namespace, is not used. See Refresh.
//
// It needs the rights to list and watch CeleryBrokers, and to get the Secrets that they
// name.
func NewWatcher(objects dynamic.Interface, clients corev1.SecretsGetter, before func() []brokers.Broker, log *slog.Logger) *Watcher {
	all := objects.Resource(Resource())
	w := &Watcher{
		secrets:  newSecrets(clients),
		resolver: brokers.NewResolver(v1alpha1.FromCluster),
		before:   before,
		log:      log,
		changed:  make(chan struct{}, 1),
		seen:     map[types.UID]int64{},
	}
	w.current.Store(&state{})
	w.objects = cache.NewSharedInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return all.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return all.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, 0)
	return w
}

// Brokers returns the brokers that are in use, sorted by namespace and name.
func (w *Watcher) Brokers() []brokers.Broker { return w.current.Load().brokers }

// All returns every CeleryBroker, sorted by namespace and name.
func (w *Watcher) All() []Found { return w.current.Load().found }

// Ready returns nil once every CeleryBroker is known, as of some moment since Run began,
// or the API server has said that it has no such resource; else it says why not.
func (w *Watcher) Ready() error {
	if w.current.Load().synced {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.absent:
		return nil
	case w.watchErr != nil:
		return w.watchErr
	}
	return errors.New("the CeleryBrokers of the cluster are not known yet")
}

// Refresh looks again, since what goes first has changed. It does not block.
func (w *Watcher) Refresh() {
	select {
	case w.changed <- struct{}{}:
	default: // a look is due anyway
	}
}

// Run watches until ctx is done and then returns nil. It calls onChange with all
// brokers, sorted by namespace and name, whenever one was added, removed or changed, and
// when it is known for the first time that there is none. What the API server refuses is logged once and tried again. Call it once; it blocks, and
// calls onChange from its own goroutine.
func (w *Watcher) Run(ctx context.Context, onChange func([]brokers.Broker)) error {
	err := w.objects.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { w.refused(err) })
	if err != nil {
		return fmt.Errorf("watch CeleryBrokers: %w", err)
	}
	told := cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(any, bool) { w.Refresh() },
		UpdateFunc: func(before, after any) {
			if generation(before) != generation(after) { // else it is its status, which we write ourselves
				w.Refresh()
			}
		},
		DeleteFunc: func(any) { w.Refresh() },
	}
	if _, err := w.objects.AddEventHandler(told); err != nil {
		return fmt.Errorf("watch CeleryBrokers: %w", err)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { w.objects.RunWithContext(ctx) })
	watching.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), w.objects.HasSynced) {
			w.Refresh() // there may be none
		}
	})
	w.loop(ctx, onChange)
	return nil
}

// generation tells apart what the spec of an object was, also of one that was made anew
// under its name.
func generation(object any) string {
	o, ok := object.(*unstructured.Unstructured)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s %d", o.GetUID(), o.GetGeneration())
}

func (w *Watcher) loop(ctx context.Context, onChange func([]brokers.Broker)) {
	ticker := time.NewTicker(secretsInterval)
	defer ticker.Stop()
	told := false
	for {
		anew := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			anew = true
		case <-w.changed:
			if !sleep(ctx, settling) {
				return
			}
		}
		changed := w.objects.HasSynced() && w.look(ctx, anew)
		if changed || !told && w.Ready() == nil {
			told = true
			onChange(w.Brokers())
		}
	}
}

// sleep returns whether it could without ctx ending.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// refused notes why the objects cannot be watched.
func (w *Watcher) refused(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.absent = apierrors.IsNotFound(err)
	switch {
	case w.absent:
		w.Refresh()
		w.report("there are no CeleryBrokers in this cluster", func() {
			w.log.Info("The cluster has no resource CeleryBroker; install it to have brokers besides those of the brokers file")
		})
		return
	case apierrors.IsForbidden(err):
		err = fmt.Errorf("celery-hpa may not read the CeleryBrokers: its ServiceAccount needs the rights to list and watch %s.%s: %w", v1alpha1.Plural, v1alpha1.Group, err)
	default:
		err = fmt.Errorf("watch the CeleryBrokers: %w", err)
	}
	w.watchErr = err
	w.report(err.Error(), func() { w.log.Error("CeleryBrokers cannot be watched; those that are known stay in use", "error", err) })
}

// report logs once what is new. w.mu is held.
func (w *Watcher) report(text string, say func()) {
	if text != w.reported {
		w.reported = text
		say()
	}
}

// look resolves every object, with all Secrets read anew or only those of objects that
// have changed, and reports whether the brokers in use are others now.
func (w *Watcher) look(ctx context.Context, anew bool) bool {
	found, wanted := w.decode()
	w.secrets.keep(ctx, wanted, anew)
	if ctx.Err() != nil {
		return false
	}
	resolved := make([]brokers.Broker, len(found))
	for i := range found {
		resolved[i] = w.resolve(&found[i])
	}
	good := w.withoutTwins(found, resolved)
	before := w.current.Load()
	after := &state{brokers: brokers.KeepGood(before.brokers, good), found: found, synced: true}
	w.current.Store(after)
	return !before.synced || !brokers.Equal(before.brokers, after.brokers)
}

// decode reads every object, sorted, and lists the Secrets that they name. Those of
// objects that have changed are forgotten.
func (w *Watcher) decode() ([]Found, map[types.NamespacedName]bool) {
	var all []Found
	wanted, seen := map[types.NamespacedName]bool{}, map[types.UID]int64{}
	for _, o := range w.objects.GetStore().List() {
		object, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		f := decode(object)
		names := named(&f.CeleryBroker)
		if generation, known := w.seen[f.UID]; !known || generation != f.Generation {
			w.secrets.forget(names)
		}
		seen[f.UID] = f.Generation
		for _, name := range names {
			wanted[name] = true
		}
		all = append(all, f)
	}
	w.seen = seen
	slices.SortFunc(all, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all, wanted
}

// decode reads an object. One that the schema of the cluster allowed and ours does not is
// invalid, and harms no other.
func decode(object *unstructured.Unstructured) Found {
	var f Found
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &f.CeleryBroker)
	if err != nil {
		f.CeleryBroker = v1alpha1.CeleryBroker{}
		f.Namespace, f.Name, f.UID, f.Generation = object.GetNamespace(), object.GetName(), object.GetUID(), object.GetGeneration()
	}
	v1alpha1.SetDefaults(&f.CeleryBroker)
	if err == nil {
		err = v1alpha1.Validate(&f.CeleryBroker, v1alpha1.FromCluster).ToAggregate()
	}
	if err != nil {
		f.Reason, f.Err = v1alpha1.ReasonInvalid, err
	}
	return f
}

// resolve makes the broker of an object, and says in the object if it is bad.
func (w *Watcher) resolve(f *Found) brokers.Broker {
	if f.Err != nil {
		return w.resolver.Refuse(f.CeleryBroker, f.Err)
	}
	b := w.resolver.Resolve(f.CeleryBroker, w.secrets.of(f.Namespace))
	if b.Err != nil {
		f.Reason, f.Err = v1alpha1.ReasonUnresolved, errors.Unwrap(b.Err) // without the object's own name
	}
	return b
}

// withoutTwins leaves out each broker that another one goes before: those known from
// elsewhere, and of the others the older one. It says so in the object.
func (w *Watcher) withoutTwins(found []Found, resolved []brokers.Broker) []brokers.Broker {
	byAge := make([]int, len(resolved))
	for i := range byAge {
		byAge[i] = i
	}
	slices.SortStableFunc(byAge, func(a, b int) int {
		return found[a].CreationTimestamp.Compare(found[b].CreationTimestamp.Time)
	})
	all := slices.Clone(w.before())
	first := len(all)
	for _, i := range byAge {
		all = append(all, resolved[i])
	}
	isTwin := make([]bool, len(resolved))
	for place, twin := range brokers.Twins(all)[first:] {
		if i := byAge[place]; twin != nil {
			found[i].Reason, found[i].Err, isTwin[i] = v1alpha1.ReasonShadowed, twin, true
		}
	}
	var kept []brokers.Broker
	for i, b := range resolved {
		if !isTwin[i] {
			kept = append(kept, b)
		}
	}
	return kept
}
