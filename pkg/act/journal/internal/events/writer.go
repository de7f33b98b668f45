package events

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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

// Event says something of an HPA.
type Event struct {
	// Namespace, HPA and UID are of the HPA.
	Namespace, HPA string
	UID            types.UID
	// Type is Normal or Warning (corev1.EventTypeNormal); Reason is one word, Message
	// a sentence, of which what is above 1,024 bytes is cut.
	Type, Reason, Message string
	// At is when it happened.
	At time.Time
	// Once has it made unless the same is there, whoever made that: another replica, or
	// this one before it was started again.
	Once bool
}

// Writer writes events of HPAs, one after the other. Make it with NewWriter. It uses the
// correlator of client-go, which counts what is said again and bounds how much is said,
// but not its broadcaster: that logs each failure, and does not end with a context.
type Writer struct {
	client  corev1client.EventsGetter
	log     *slog.Logger
	waiting chan Event
	lost    atomic.Int64 // since the last one was written

	// Of the goroutine of Run.
	correlator *correlation.EventCorrelator
	numbered   int64  // the latest number of an event
	reported   string // the failure that was logged last
}

// NewWriter makes a writer. It needs the rights to create and patch events.
func NewWriter(client corev1client.EventsGetter, log *slog.Logger) *Writer {
	return &Writer{
		client: client, log: log, waiting: make(chan Event, mostWaiting),
		correlator: correlation.NewEventCorrelatorWithOptions(correlation.CorrelatorOptions{SpamKeyFunc: spamKey}),
	}
}

// spamKey is what is bounded together, to 25 events at once and one in 5 minutes: those
// of a reason, so that many of one sort never hide the others.
func spamKey(e *corev1.Event) string { return string(e.InvolvedObject.UID) + "/" + e.Reason }

// Add has an event written. It never blocks: where too many wait, this one is lost. It
// is safe for concurrent use.
func (w *Writer) Add(e Event) {
	select {
	case w.waiting <- e:
	default:
		w.lost.Add(1)
	}
}

// objectOf is an event as the API server has it. Its name has a number that is the time,
// as everybody's, and greater than the one before: events of one HPA may be of one time.
func (w *Writer) objectOf(e Event) *corev1.Event {
	at := metav1.NewTime(e.At)
	w.numbered = max(e.At.UnixNano(), w.numbered+1)
	number := w.numbered
	if e.Once {
		number = hash(e)
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace,
			Name:      correlationutil.GenerateEventName(e.HPA, number),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler",
			Namespace: e.Namespace, Name: e.HPA, UID: e.UID,
		},
		Type: e.Type, Reason: e.Reason, Message: cut(e.Message),
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: component},
		ReportingController: component,
	}
}

// hash is a number of what an event says and of whom.
func hash(e Event) int64 {
	h := fnv.New64a()
	for _, text := range []string{string(e.UID), e.Type, e.Reason, e.Message} {
		_, _ = h.Write(append([]byte(text), 0)) // it never fails
	}
	return int64(h.Sum64() >> 1) //nolint:gosec // it is positive without its last bit
}

// cut shortens a message to what an event may say.
func cut(message string) string {
	if len(message) <= longestMessage {
		return message
	}
	return strings.ToValidUTF8(message[:longestMessage-len("…")], "") + "…"
}

// Run writes until ctx is done, and then what is on its way or still waits, for no longer
// than a second. It blocks.
func (w *Writer) Run(ctx context.Context) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTimeout, cancel) })()
	for {
		select {
		case event := <-w.waiting:
			w.write(lasting, event)
		case <-ctx.Done():
			w.flush(lasting)
			return
		}
	}
}

// flush writes what waits, while ctx goes on.
func (w *Writer) flush(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case event := <-w.waiting:
			w.write(ctx, event)
		default:
			return
		}
	}
}

// write writes one event, unless there were too many like it. What the API server
// refuses is not tried again.
func (w *Writer) write(ctx context.Context, event Event) {
	if n := w.lost.Swap(0); n > 0 {
		w.log.Warn("Events were lost, since too many waited to be written", "events", n)
	}
	result, err := w.correlate(event)
	if err != nil {
		w.report(err)
		return
	}
	if result.Skip {
		return
	}
	for attempt := range attempts {
		if attempt > 0 && !sleep(ctx, attemptPause) {
			return
		}
		err := w.attempt(ctx, result, event.Once)
		if ctx.Err() != nil {
			return // out of time
		}
		w.report(err)
		if err == nil || isRefused(err) {
			return
		}
	}
}

// correlate decides what becomes of an event: it is made, counted, or left out.
func (w *Writer) correlate(event Event) (*correlation.EventCorrelateResult, error) {
	object := w.objectOf(event)
	if event.Once {
		return &correlation.EventCorrelateResult{Event: object}, nil
	}
	return w.correlator.EventCorrelate(object)
}

// attempt makes an event, or counts one that is there; that may be gone by now. One that
// is to be made once may be there.
func (w *Writer) attempt(ctx context.Context, result *correlation.EventCorrelateResult, once bool) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	client, event := w.client.Events(result.Event.Namespace), result.Event
	var written *corev1.Event
	err := error(nil)
	if event.Count > 1 {
		written, err = client.Patch(ctx, event.Name, types.StrategicMergePatchType, result.Patch, metav1.PatchOptions{})
	}
	if event.Count <= 1 || apierrors.IsNotFound(err) {
		event.ResourceVersion = ""
		written, err = client.Create(ctx, event, metav1.CreateOptions{})
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || once && apierrors.IsAlreadyExists(err) {
		return nil // nobody will read it, or it can be read already
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w in namespace %s is missing: %w", errNoRight, event.Namespace, err)
	}
	if err != nil {
		return fmt.Errorf("write an event of HorizontalPodAutoscaler %s/%s: %w", event.Namespace, event.InvolvedObject.Name, err)
	}
	if !once {
		w.correlator.UpdateState(written)
	}
	return nil
}

// isRefused tells an answer of the API server from the lack of one.
func isRefused(err error) bool { return apierrors.ReasonForError(err) != metav1.StatusReasonUnknown }

// report logs a failure once until another one follows, or none. A right is missing in
// every namespace, or in few: it is said once.
func (w *Writer) report(err error) {
	text := ""
	switch {
	case err == nil:
	case errors.Is(err, errNoRight):
		text = errNoRight.Error()
	default:
		text = err.Error()
	}
	switch text {
	case w.reported:
	case "":
		w.log.Info("Events can be written again")
	default:
		w.log.Warn("Could not write an event", "error", err)
	}
	w.reported = text
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
