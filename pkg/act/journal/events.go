package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	correlation "k8s.io/client-go/tools/record"
	correlationutil "k8s.io/client-go/tools/record/util"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	// component is who the events are from.
	component = "celery-hpa"
	// mostWaiting is how many events wait to be written at the most, as in client-go
	// (tools/record/event.go, maxQueuedEvents).
	mostWaiting = 1000
	// longestMessage is what an event says at the most, in bytes (k8s.io/kubernetes,
	// pkg/apis/core/validation/events.go, NoteLengthLimit).
	longestMessage = 1024
	// attempts is how often an event is tried to be written, with a pause between.
	attempts, attemptPause = 3, time.Second
	// attemptTimeout bounds one attempt; lastTimeout all that is written at the end.
	attemptTimeout, lastTimeout = 5 * time.Second, time.Second
)

// errNoRight begins what is said where RBAC forbids.
var errNoRight = errors.New("the right to create and patch events")

// events writes events of HPAs, one after the other. It uses the correlator of
// client-go, which counts what is said again and bounds how much is said, but not its
// broadcaster: that logs each failure, and does not end with a context.
type events struct {
	client  corev1client.EventsGetter
	log     *slog.Logger
	waiting chan *corev1.Event
	lost    atomic.Int64 // since the last one was written

	// Of the goroutine of run.
	correlator *correlation.EventCorrelator
	reported   string // the failure that was logged last
}

func newEvents(client corev1client.EventsGetter, log *slog.Logger) *events {
	return &events{
		client: client, log: log, waiting: make(chan *corev1.Event, mostWaiting),
		correlator: correlation.NewEventCorrelatorWithOptions(correlation.CorrelatorOptions{SpamKeyFunc: spamKey}),
	}
}

// spamKey is what is bounded together, to 25 events at once and one in 5 minutes: those
// of a reason, so that many of one sort never hide the others.
func spamKey(e *corev1.Event) string { return string(e.InvolvedObject.UID) + "/" + e.Reason }

// add has an event written. It never blocks: where too many wait, this one is lost.
func (e *events) add(t target.Target, s saying) {
	select {
	case e.waiting <- newEvent(t, s):
	default:
		e.lost.Add(1)
	}
}

func newEvent(t target.Target, s saying) *corev1.Event {
	at := metav1.NewTime(s.at)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: t.Namespace,
			Name:      correlationutil.GenerateEventName(t.HPA, s.at.UnixNano()),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler",
			Namespace: t.Namespace, Name: t.HPA, UID: t.UID,
		},
		Type: s.kind, Reason: s.reason, Message: cut(s.message),
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
	}
}

// cut shortens a message to what an event may say.
func cut(message string) string {
	if len(message) <= longestMessage {
		return message
	}
	return strings.ToValidUTF8(message[:longestMessage-len("…")], "") + "…"
}

// run writes until ctx is done, and then what is on its way or still waits, for no longer
// than lastTimeout.
func (e *events) run(ctx context.Context) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTimeout, cancel) })()
	for {
		select {
		case event := <-e.waiting:
			e.write(lasting, event)
		case <-ctx.Done():
			e.flush(lasting)
			return
		}
	}
}

// flush writes what waits, while ctx goes on.
func (e *events) flush(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case event := <-e.waiting:
			e.write(ctx, event)
		default:
			return
		}
	}
}

// write writes one event, unless there were too many like it. What the API server
// refuses is not tried again.
func (e *events) write(ctx context.Context, event *corev1.Event) {
	if n := e.lost.Swap(0); n > 0 {
		e.log.Warn("Events were lost, since too many waited to be written", "events", n)
	}
	result, err := e.correlator.EventCorrelate(event)
	if err != nil {
		e.report(err)
		return
	}
	if result.Skip {
		return
	}
	for attempt := range attempts {
		if attempt > 0 && !sleep(ctx, attemptPause) {
			return
		}
		err := e.attempt(ctx, result)
		if ctx.Err() != nil {
			return // out of time
		}
		e.report(err)
		if err == nil || isRefused(err) {
			return
		}
	}
}

// attempt makes an event, or counts one that is there; that may be gone by now.
func (e *events) attempt(ctx context.Context, result *correlation.EventCorrelateResult) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	client, event := e.client.Events(result.Event.Namespace), result.Event
	var written *corev1.Event
	err := error(nil)
	if event.Count > 1 {
		written, err = client.Patch(ctx, event.Name, types.StrategicMergePatchType, result.Patch, metav1.PatchOptions{})
	}
	if event.Count <= 1 || apierrors.IsNotFound(err) {
		event.ResourceVersion = ""
		written, err = client.Create(ctx, event, metav1.CreateOptions{})
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // nobody will read it
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w in namespace %s is missing: %w", errNoRight, event.Namespace, err)
	}
	if err != nil {
		return fmt.Errorf("write an event of HorizontalPodAutoscaler %s/%s: %w", event.Namespace, event.InvolvedObject.Name, err)
	}
	e.correlator.UpdateState(written)
	return nil
}

// isRefused tells an answer of the API server from the lack of one.
func isRefused(err error) bool { return apierrors.ReasonForError(err) != metav1.StatusReasonUnknown }

// report logs a failure once until another one follows, or none. A right is missing in
// every namespace, or in few: it is said once.
func (e *events) report(err error) {
	text := ""
	switch {
	case err == nil:
	case errors.Is(err, errNoRight):
		text = errNoRight.Error()
	default:
		text = err.Error()
	}
	switch {
	case text == e.reported:
	case text == "":
		e.log.Info("Events can be written again")
	default:
		e.log.Warn("Could not write an event", "error", err)
	}
	e.reported = text
}

// sleep waits, and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
