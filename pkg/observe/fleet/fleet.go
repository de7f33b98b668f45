package fleet

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Kind is what a fleet is scaled by.
type Kind string

// The kinds.
const (
	Deployment  Kind = "Deployment"
	StatefulSet Kind = "StatefulSet"
	// Pods are those that a selector chooses, whatever they are scaled by.
	Pods Kind = "Pods"
)

// Ref names a fleet: a Deployment or StatefulSet of workers, or their pods.
type Ref struct {
	Namespace string
	Kind      Kind
	// Name is that of the Deployment or StatefulSet, or the selector as text.
	Name string
}

// String is like "Deployment airflow/worker".
func (r Ref) String() string { return string(r.Kind) + " " + r.Namespace + "/" + r.Name }

// State is what is known of a worker, or of a pod by its worker. All but Idle and
// Starting count as busy.
type State int

// The states. The zero value is Unknown: nobody is idle by omission.
const (
	// Unknown is a worker that has gone silent, says nothing that can be
	// understood, or was never heard in a pod that is ready.
	Unknown State = iota
	// Starting is a pod that is not ready yet and whose worker was never heard.
	Starting
	// Idle is a worker that executes nothing, as of its latest heartbeat.
	Idle
	// Busy is a worker that executes a task at least.
	Busy
	// Draining is a worker that has begun to shut down, with or without tasks that
	// still execute; nothing more is heard of it until its pod is gone.
	Draining
)

// String is the state in lower case, as metrics have it.
func (s State) String() string {
	names := [...]string{"unknown", "starting", "idle", "busy", "draining"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// IsBusy reports whether a worker in this state may execute a task.
func (s State) IsBusy() bool { return s != Idle && s != Starting }

// Member is a pod of a fleet with what is known of its worker.
type Member struct {
	// Pod is the pod's name, UID its identity.
	Pod string
	UID types.UID
	// Host is the name under which its worker is heard.
	Host string
	// Ordinal is the pod's number in a StatefulSet, counted from the first one
	// that the set has (spec.ordinals.start); -1 where it is in none.
	Ordinal int
	// Ready is the pod's condition; Terminating, whether it is being deleted: then
	// no scaling concerns it any more.
	Ready, Terminating bool
	// State is what is known of the worker, Reason why it is that, for people.
	State  State
	Reason string
	// Since is when the worker came into this state, as far as it was seen.
	Since time.Time
	// Active is how many tasks execute in the pod.
	Active queue.Count
	// Slots is how many can execute at once; unknown without remote control.
	Slots queue.Count
	// Begun is how many tasks may have begun in the pod, or in another of those that
	// serve the same queues, that nobody has told of yet (workers.Store.AddBegun).
	Begun int64
	// Annotations are those of the pod that celery-hpa may write, by key.
	Annotations map[string]string
}

// Fleet is a Deployment or StatefulSet with its pods, or some pods alone. It is not
// changed after it was handed out.
type Fleet struct {
	Ref
	// Members are its pods, sorted by name, terminating ones included. Pods that
	// have ended (phase Succeeded or Failed) are not among them.
	Members []Member
	// Heard tells whether any pod's worker was ever heard. Without that nothing
	// says that these are Celery workers at all.
	Heard bool
}

// Scale is the scale of a Deployment or StatefulSet, as its scale subresource tells.
type Scale struct {
	// Replicas is how many pods are wanted (spec.replicas), Pods how many there are
	// (status.replicas).
	Replicas, Pods int32
	// Selector is that of the pods, as text (status.selector).
	Selector string
	// UID and ResourceVersion are of the Deployment or StatefulSet. They are those of
	// its scale subresource, too.
	UID             types.UID
	ResourceVersion string
}
