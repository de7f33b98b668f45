package drain

import (
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// FleetOf names the fleet that an HPA scales. It is false if that is neither a
// Deployment nor a StatefulSet: nothing is known of the workers of others.
func FleetOf(t target.Target) (fleet.Ref, bool) {
	ref := fleet.Ref{Namespace: t.Namespace, Name: t.Name}
	switch {
	case t.IsDeployment():
		ref.Kind = fleet.Deployment
	case t.IsStatefulSet():
		ref.Kind = fleet.StatefulSet
	default:
		return fleet.Ref{}, false
	}
	return ref, true
}
