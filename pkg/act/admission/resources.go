package admission

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// Resources knows the API resource of each kind that an HPA can scale.
type Resources interface {
	// Resource names the resource of a target, like deployments.apps. It may ask the
	// API server, which must not take long. The error says why the kind is not known.
	Resource(t target.Target) (schema.GroupResource, error)
}

// ResourceOf names the resource of a target. Those of Kubernetes itself are known
// without resources, which may be nil.
func ResourceOf(resources Resources, t target.Target) (schema.GroupResource, error) {
	switch {
	case t.IsDeployment():
		return schema.GroupResource{Group: "apps", Resource: "deployments"}, nil
	case t.IsStatefulSet():
		return schema.GroupResource{Group: "apps", Resource: "statefulsets"}, nil
	case resources == nil:
		return schema.GroupResource{}, fmt.Errorf("the resource of %s (%s) is not known", t, t.APIVersion)
	}
	return resources.Resource(t)
}
