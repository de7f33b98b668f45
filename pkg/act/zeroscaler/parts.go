package zeroscaler

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Scale is the scale of a target at one moment.
type Scale struct {
	// Replicas is spec.replicas, Pods status.replicas.
	Replicas, Pods int32
	// Selector is that of the pods (status.selector), empty if it is not told.
	Selector string
	// UID and ResourceVersion are of the object that is scaled.
	UID             types.UID
	ResourceVersion string
}

// ErrConflict says that somebody has written the target since it was looked at.
var ErrConflict = errors.New("the target has changed since it was looked at")

// RefusedError says that an admission webhook did not let a write pass.
type RefusedError struct{ Message string }

// Error implements error.
func (e *RefusedError) Error() string { return "refused: " + e.Message }

// Scales reads and writes scales.
type Scales interface {
	// Get returns the scale of a target: from memory where it is watched, else by
	// asking. It never returns one that is older than what Set has written.
	Get(ctx context.Context, t target.Target) (Scale, error)
	// Set writes spec.replicas, unless the target has changed since seen: then the
	// error wraps ErrConflict. One that is refused is a RefusedError.
	Set(ctx context.Context, t target.Target, seen Scale, replicas int32) error
}

// Senses is what is known of targets.
type Senses interface {
	// Observe returns what is known from memory. It does no I/O.
	Observe(t target.Target, seen Scale, now time.Time) idle.Observation
	// Look asks the brokers and the workers of a target afresh and returns what is
	// known then. It blocks for two seconds at most; what could not be read by then
	// is unknown.
	Look(ctx context.Context, t target.Target, seen Scale) idle.Observation
	// Queues returns the queues that the target works for, by broker, with the
	// broker's own names, sorted, as far as they are known.
	Queues(t target.Target) map[queue.BrokerRef][]string
}

// Lookouts watches queues closely; see lookout.Group.
type Lookouts interface {
	// Watch makes these the queues of a broker that are watched.
	Watch(ref queue.BrokerRef, queues []string)
}

// Sampling is the schedule of samples; see sampler.Group.
type Sampling interface {
	// Hurry has the next sample of a broker taken now.
	Hurry(ref queue.BrokerRef)
}

// Journal is told what is decided and done; see package journal. Its methods do no
// I/O that they would wait for.
type Journal interface {
	// Decided is told of each decision. It keeps those that differ from the one
	// before, with what was known.
	Decided(t target.Target, o idle.Observation, d idle.Decision, at time.Time)
	// Slept, Woke and Raised are told of writes that have succeeded; waited is the
	// time from the first knowledge of a message to the end of the write.
	Slept(t target.Target, from int32, d idle.Decision, at time.Time)
	Woke(t target.Target, to int32, d idle.Decision, waited time.Duration, at time.Time)
	Raised(t target.Target, from, to int32, d idle.Decision, at time.Time)
	// Refused is told of a step to zero that did not pass a look at the last moment,
	// our own or the webhook's; Failed of a write that did not succeed.
	Refused(t target.Target, cause idle.Cause, message string, at time.Time)
	Failed(t target.Target, action idle.Action, err error, at time.Time)
	// Mistaken is told why nothing is done about a target that asks for it.
	Mistaken(t target.Target, at time.Time)
	// Delayed is told that a wake waits for its turn, since many are due at once.
	Delayed(t target.Target, wait time.Duration, at time.Time)
	// Forget is told that a target is no longer ours.
	Forget(t target.Target)
}
