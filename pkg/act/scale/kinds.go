package scale

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	discoverycache "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// renewal is how often the API server is asked for all its kinds at the most, after
// one was not among those that are known.
const renewal = 10 * time.Second

// kinds knows the resources of kinds, by discovery, which is made when the first kind
// is asked for that is no Deployment or StatefulSet.
type kinds struct {
	cached discovery.CachedDiscoveryInterfaceWithContext
	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu      sync.Mutex
	renewed time.Time
}

func newKinds(config *rest.Config) (*kinds, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for discovery: %w", err)
	}
	cached := discoverycache.NewMemCacheClientWithContext(client)
	return &kinds{cached: cached, mapper: restmapper.NewDeferredDiscoveryRESTMapperWithContext(cached)}, nil
}

// resource is that of a target's kind. Like the HPA, it heeds the group of apiVersion
// alone and takes the version that the API server prefers
// (k8s.io/kubernetes, pkg/controller/podautoscaler/horizontal.go, reconcileAutoscaler).
func (k *kinds) resource(ctx context.Context, t target.Target) (schema.GroupVersionResource, error) {
	switch {
	case t.IsDeployment():
		return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, nil
	case t.IsStatefulSet():
		return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, nil
	}
	kind, err := kindOf(t)
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	mapping, err := k.mapper.RESTMappingWithContext(ctx, kind)
	if meta.IsNoMatchError(err) && k.renew(ctx) {
		mapping, err = k.mapper.RESTMappingWithContext(ctx, kind)
	}
	switch {
	case meta.IsNoMatchError(err):
		return schema.GroupVersionResource{}, unknownKind(t, kind)
	case err != nil:
		return schema.GroupVersionResource{}, fmt.Errorf("find the resource of %s: %w", t, timedOut(ctx, err))
	}
	return mapping.Resource, nil
}

func kindOf(t target.Target) (schema.GroupKind, error) {
	version, err := schema.ParseGroupVersion(t.APIVersion)
	if err != nil {
		return schema.GroupKind{}, fmt.Errorf("%s, whose apiVersion is wrong: %w", scaled(t), err)
	}
	return schema.GroupKind{Group: version.Group, Kind: t.Kind}, nil
}

// hasScale reports whether a resource can be scaled, as far as that can be told.
func (k *kinds) hasScale(ctx context.Context, resource schema.GroupVersionResource) bool {
	k.renew(ctx)
	known, err := k.cached.ServerResourcesForGroupVersionWithContext(ctx, resource.GroupVersion().String())
	return err != nil || slices.ContainsFunc(known.APIResources, func(r metav1.APIResource) bool { return r.Name == resource.Resource+"/scale" })
}

// renew has discovery made anew, unless that was done lately. Only then it is true.
func (k *kinds) renew(ctx context.Context) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if !k.renewed.IsZero() && now.Sub(k.renewed) < renewal {
		return false
	}
	k.renewed = now
	k.mapper.ResetWithContext(ctx)
	return true
}
