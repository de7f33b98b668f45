package scale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/klog/v2"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

const (
	// timeout bounds one call, with all that it asks the API server.
	timeout = 2 * time.Second
	// fieldManager is who the API server says has written.
	fieldManager = "celery-hpa"
)

// Watched gives the scale of a Deployment or StatefulSet from memory; see
// fleet.Watcher. An error wraps fleet.ErrNoFleet where there is no such object.
type Watched interface {
	Scale(ref fleet.Ref) (fleet.Scale, error)
}

// Scales implements zeroscaler.Scales. Make it with New. It is safe for concurrent use.
type Scales struct {
	watched Watched
	client  rest.Interface
	kinds   *kinds
	memory  *memory
}

var _ zeroscaler.Scales = (*Scales)(nil)

// New makes a reader and writer of scales. It needs the right to patch
// deployments/scale and statefulsets/scale, and to get and patch the scale of
// whatever else HPAs scale. The configuration is not changed; it should not limit
// itself to client-go's default of 5 requests per second.
func New(config *rest.Config, watched Watched) (*Scales, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion = &schema.GroupVersion{}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for scales: %w", err)
	}
	kinds, err := newKinds(config)
	if err != nil {
		return nil, err
	}
	return &Scales{watched: watched, client: client, kinds: kinds, memory: newMemory()}, nil
}

// Get implements zeroscaler.Scales. Of Deployments and StatefulSets it returns at
// once; of other kinds it returns what was read within the last second, or asks and
// blocks for 2 s at the most. The error names the HPA where that scales what does not
// exist or cannot be scaled.
func (s *Scales) Get(ctx context.Context, t target.Target) (zeroscaler.Scale, error) {
	if ref, ok := drain.FleetOf(t); ok {
		return s.memory.watched(t, func() (zeroscaler.Scale, error) { return s.lookUp(t, ref) })
	}
	return s.memory.asked(ctx, t, func() (zeroscaler.Scale, error) { return s.ask(ctx, t) })
}

// lookUp returns what the watch shows.
func (s *Scales) lookUp(t target.Target, ref fleet.Ref) (zeroscaler.Scale, error) {
	shown, err := s.watched.Scale(ref)
	if errors.Is(err, fleet.ErrNoFleet) {
		return zeroscaler.Scale{}, missing(t)
	}
	if err != nil {
		return zeroscaler.Scale{}, fmt.Errorf("read the scale of %s: %w", t, err)
	}
	return zeroscaler.Scale{
		Replicas: shown.Replicas, Pods: shown.Pods,
		UID: shown.UID, ResourceVersion: shown.ResourceVersion,
	}, nil
}

// ask reads the scale from the API server.
func (s *Scales) ask(ctx context.Context, t target.Target) (zeroscaler.Scale, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resource, err := s.kinds.resource(ctx, t)
	if err != nil {
		return zeroscaler.Scale{}, err
	}
	got, err := s.scalesOf(resource, t).Get(ctx, resource.GroupResource(), t.Name, metav1.GetOptions{})
	if err != nil {
		return zeroscaler.Scale{}, fmt.Errorf("read the scale of %s: %w", t, s.explain(ctx, err, request{t, resource, "get"}))
	}
	return scaleOf(got), nil
}

// Set implements zeroscaler.Scales. It makes one request and blocks for 2 s at the
// most; after a time-out nobody knows whether the target was written. The right that
// is missing is named.
func (s *Scales) Set(ctx context.Context, t target.Target, seen zeroscaler.Scale, replicas int32) error {
	if seen.ResourceVersion == "" {
		return fmt.Errorf("scale %s to %d: its resourceVersion is not known", t, replicas)
	}
	patch, err := patchOf(seen, replicas)
	if err != nil {
		return fmt.Errorf("scale %s to %d: %w", t, replicas, err)
	}
	got, err := s.write(ctx, t, patch)
	if err != nil {
		s.memory.forget(t)
		return fmt.Errorf("scale %s to %d: %w", t, replicas, err)
	}
	s.memory.written(t, seen, scaleOf(got))
	return nil
}

// patchOf is a merge patch. Zero must stand in it: what is left out stays as it is.
func patchOf(seen zeroscaler.Scale, replicas int32) ([]byte, error) {
	return json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": seen.ResourceVersion},
		"spec":     map[string]any{"replicas": replicas},
	})
}

func (s *Scales) write(ctx context.Context, t target.Target, patch []byte) (*autoscalingv1.Scale, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	resource, err := s.kinds.resource(ctx, t)
	if err != nil {
		return nil, err
	}
	got, err := s.scalesOf(resource, t).
		Patch(ctx, resource, t.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return nil, s.explain(ctx, err, request{t, resource, "patch"})
	}
	return got, nil
}

// Resource returns the plural name of a target's kind, as RBAC and webhooks have it.
// Of Deployments and StatefulSets it returns at once; of other kinds it may ask the
// API server, and blocks for 2 s at the most.
func (s *Scales) Resource(t target.Target) (schema.GroupResource, error) {
	ctx, cancel := bounded(context.Background())
	defer cancel()
	resource, err := s.kinds.resource(ctx, t)
	return resource.GroupResource(), err
}

// bounded gives a context the time of one call, and no log: each failure is returned.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = klog.NewContext(ctx, klog.Logger{})
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the API server has not answered within %s", timeout))
}

// scalesOf is client-go's client for scales of one resource, and of no other.
func (s *Scales) scalesOf(resource schema.GroupVersionResource, t target.Target) scaleclient.ScaleInterface {
	return scaleclient.New(s.client, preferred(resource), dynamic.LegacyAPIPathResolverFunc, nil).Scales(t.Namespace)
}

// preferred says that a resource is the one that is meant.
type preferred schema.GroupVersionResource

// ResourceFor implements scaleclient.PreferredResourceMapper.
func (p preferred) ResourceFor(schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	return schema.GroupVersionResource(p), nil
}

func scaleOf(s *autoscalingv1.Scale) zeroscaler.Scale {
	return zeroscaler.Scale{
		Replicas: s.Spec.Replicas, Pods: s.Status.Replicas, Selector: s.Status.Selector,
		UID: s.UID, ResourceVersion: s.ResourceVersion,
	}
}
