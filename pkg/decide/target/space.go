package target

import (
	"context"
	"errors"
	"io"
	"maps"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	informers "k8s.io/client-go/informers/autoscaling/v2"
	"k8s.io/client-go/tools/cache"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// space is the watch of one namespace. What of it is shared is guarded by the
// watcher's mutex.
type space struct {
	watcher   *Watcher
	namespace string
	run       func() // blocks until the watch has ended
	stop      context.CancelFunc

	targets map[string]Target // by name of the HPA; of those that are not ours what they scale alone
	synced  bool

	complaints map[string]string // by name of the HPA; of the goroutine of events alone
	failure    string            // of the goroutine of the watch alone
}

// newSpace makes the watch of a namespace, which begins with run and ends with ctx or
// stop.
func newSpace(ctx context.Context, w *Watcher, namespace string) *space {
	ctx, stop := context.WithCancel(ctx)
	s := &space{
		watcher: w, namespace: namespace, stop: stop,
		targets: map[string]Target{}, complaints: map[string]string{},
	}
	s.run = func() { s.watch(ctx) }
	return s
}

// watch blocks until ctx is done.
func (s *space) watch(ctx context.Context) {
	informer := informers.NewHorizontalPodAutoscalerInformer(s.watcher.clients, s.namespace, 0, nil)
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.put,
		UpdateFunc: func(_, object any) { s.put(object) },
		DeleteFunc: s.drop,
	})
	if err := errors.Join(err, informer.SetTransform(strip), informer.SetWatchErrorHandlerWithContext(s.fail)); err != nil {
		// Only an informer that runs already refuses.
		s.watcher.log.Error("HorizontalPodAutoscalers cannot be watched", "namespace", s.namespace, "error", err)
		return
	}
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		select {
		case <-registration.HasSyncedChecker().Done():
			s.watcher.update(s, func() bool { s.synced = true; return true })
		case <-ctx.Done():
		}
	}()
	informer.RunWithContext(ctx)
	<-synced
}

// put takes over an HPA that is new or has changed.
func (s *space) put(object any) {
	hpa, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return
	}
	t, err := Of(hpa)
	s.complain(hpa.Name, err)
	if !t.ours() {
		t = Target{Namespace: t.Namespace, HPA: t.HPA, APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name}
	}
	s.watcher.update(s, func() bool {
		before, known := s.targets[hpa.Name]
		s.targets[hpa.Name] = t
		changed := !known || !t.Equal(before)
		return changed && s.synced && (s.matters(t) || known && s.matters(before))
	})
}

// matters tells whether an HPA has to do with what the watcher returns: it is one of
// ours, or scales what one of ours does. The watcher's mutex is held.
func (s *space) matters(t Target) bool {
	if t.ours() {
		return true
	}
	for _, other := range s.targets {
		if other.ours() && other.scaled() == t.scaled() {
			return true
		}
	}
	return false
}

// drop forgets an HPA that is gone.
func (s *space) drop(object any) {
	if tombstone, missed := object.(cache.DeletedFinalStateUnknown); missed {
		object = tombstone.Obj
	}
	hpa, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return
	}
	s.complain(hpa.Name, nil)
	s.watcher.update(s, func() bool {
		before, known := s.targets[hpa.Name]
		delete(s.targets, hpa.Name)
		return known && s.matters(before)
	})
}

// complain logs what is wrong with the annotations of an HPA, once until it changes.
func (s *space) complain(hpa string, err error) {
	if text(err) == s.complaints[hpa] {
		return
	}
	delete(s.complaints, hpa)
	if err != nil {
		s.complaints[hpa] = err.Error()
		s.watcher.log.Warn("Annotations of a HorizontalPodAutoscaler are ignored", "error", err)
	}
}

// fail logs why a watch was interrupted, once until the reason changes. The informer
// tries again by itself.
func (s *space) fail(_ context.Context, _ *cache.Reflector, err error) {
	usual := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
	if usual || err.Error() == s.failure {
		return
	}
	s.failure = err.Error()
	s.watcher.log.Warn("HorizontalPodAutoscalers cannot be watched; what was known of them stays in use", "namespace", s.namespace, "error", err)
}

// strip leaves of an HPA what Of reads, and what the informer needs to know it by:
// thousands of them are kept in memory, each with a status of many lines.
func strip(object any) (any, error) {
	hpa, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return object, nil // a tombstone
	}
	annotations := maps.Clone(hpa.Annotations)
	maps.DeleteFunc(annotations, func(key, _ string) bool { return !strings.HasPrefix(key, v1alpha1.AnnotationPrefix) })
	var behavior *autoscalingv2.HorizontalPodAutoscalerBehavior
	if hpa.Spec.Behavior != nil {
		behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: hpa.Spec.Behavior.ScaleUp}
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: hpa.Namespace, Name: hpa.Name, UID: hpa.UID, ResourceVersion: hpa.ResourceVersion,
			Annotations: annotations,
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: hpa.Spec.ScaleTargetRef,
			MinReplicas:    hpa.Spec.MinReplicas,
			MaxReplicas:    hpa.Spec.MaxReplicas,
			Metrics:        hpa.Spec.Metrics,
			Behavior:       behavior,
		},
	}, nil
}
