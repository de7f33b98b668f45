package brokerstatus

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokerresource"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// turnInterval is the least time from one write of a status to the next.
	turnInterval = 5 * time.Second
	// numbersInterval is the least time from one write that changes numbers, or words
	// alone, to the next.
	numbersInterval = time.Minute
	// maxMessage bounds a message, in bytes; the API server takes 32768.
	maxMessage = 2000
)

// view is what is known of a broker now.
type view struct {
	broker *snapshot.Broker // nil: it is not sampled
	// workers is why its workers are not heard, or not asked; nil if they are.
	workers error
	// untold is why it does not tell of messages for targets that sleep; nil if it does.
	untold error
}

// statusOf says how a CeleryBroker is, without numbers. Conditions keep their time of
// transition.
func statusOf(f brokerresource.Found, v view, now time.Time) v1alpha1.CeleryBrokerStatus {
	s := v1alpha1.CeleryBrokerStatus{ObservedGeneration: f.Generation, MissingRights: missingRights(v)}
	s.Conditions = append(s.Conditions, f.Status.Conditions...)
	ready := readiness(f, v, now)
	ready.Type, ready.ObservedGeneration, ready.LastTransitionTime = v1alpha1.ConditionReady, f.Generation, metav1.NewTime(now)
	if len(ready.Message) > maxMessage {
		ready.Message = ready.Message[:maxMessage] + " …"
	}
	meta.SetStatusCondition(&s.Conditions, ready)
	return s
}

// count adds the numbers to a status. Its cost follows the number of queues.
func count(s *v1alpha1.CeleryBrokerStatus, v view, now time.Time) {
	if v.broker == nil || !v.broker.Sampled() {
		return
	}
	at := metav1.NewTime(v.broker.SampledAt().Truncate(time.Minute))
	s.LastSampleTime = &at
	s.Queues, s.Backlog, s.InFlight = numbers(v.broker, now)
}

// readiness is the condition Ready.
func readiness(f brokerresource.Found, v view, now time.Time) metav1.Condition {
	b := v.broker
	switch {
	case f.Err != nil && b != nil && b.Sampled():
		return metav1.Condition{
			Status: metav1.ConditionFalse, Reason: f.Reason,
			Message: fmt.Sprintf("%v; what was good before stays in use", f.Err),
		}
	case f.Err != nil:
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: f.Reason, Message: f.Err.Error()}
	case b == nil || !b.Sampled() && b.Failure == nil:
		return metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotSampled, Message: "The broker was not read yet."}
	case b.Failure != nil && now.Sub(b.SampledAt()) > b.MaxAge:
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnreachable, Message: b.Failure.Error()}
	}
	if incomplete := errors.Join(b.Degraded(), v.workers); incomplete != nil {
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIncomplete, Message: incomplete.Error()}
	}
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSampled, Message: "The broker is read."}
}

// numbers are those of all queues together. A sum with a part that is unknown is unknown.
func numbers(b *snapshot.Broker, now time.Time) (queues, backlog, inFlight *int64) {
	backlog, inFlight = new(int64), new(int64)
	labels := b.Labels()
	for _, label := range labels {
		depth, err := b.Lookup(label, now)
		if err != nil {
			depth.Backlog, depth.InFlight = queue.Unknown(err), queue.Unknown(err)
		}
		backlog, inFlight = sum(backlog, depth.Backlog), sum(inFlight, depth.InFlight)
	}
	return new(int64(len(labels))), backlog, inFlight
}

// sum is nil once a part is unknown.
func sum(total *int64, c queue.Count) *int64 {
	if total == nil || c.Err != nil {
		return nil
	}
	return new(*total + c.N)
}

// missingRights are what a broker does not permit.
func missingRights(v view) []string {
	var missing []string
	var causes []error
	if v.broker != nil {
		causes = append(causes, v.broker.Failure, v.broker.Degraded())
	}
	for _, err := range append(causes, v.workers, v.untold) {
		if queue.IsMissingRight(err) {
			missing = append(missing, err.Error())
		}
	}
	return missing
}

// due tells whether a status may be written in place of another that was written, or
// compared, a while ago: soon if it says something else, seldom for numbers and words.
func due(before, after v1alpha1.CeleryBrokerStatus, age time.Duration) bool {
	return age >= numbersInterval || age >= turnInterval && gist(before) != gist(after)
}

// gist is what of a status is to be known at once. What is wrong with the object itself,
// and how many rights are missing, changes when somebody mends it, and then he waits for
// it; what is wrong with a broker may read differently each time.
func gist(s v1alpha1.CeleryBrokerStatus) [5]string {
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return [5]string{}
	}
	words := ready.Message
	switch ready.Reason {
	case v1alpha1.ReasonSampled, v1alpha1.ReasonIncomplete, v1alpha1.ReasonUnreachable:
		words = ""
	}
	return [5]string{string(ready.Status), ready.Reason, fmt.Sprint(s.ObservedGeneration), words, fmt.Sprint(len(s.MissingRights))}
}
