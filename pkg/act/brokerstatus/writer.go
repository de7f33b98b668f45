package brokerstatus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokerresource"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

const (
	// lookInterval is the time from one look at everything to the next.
	lookInterval = time.Second
	// writeTimeout bounds one write.
	writeTimeout = 5 * time.Second
)

// Resources gives every CeleryBroker; see brokerresource.Watcher.
type Resources interface{ All() []brokerresource.Found }

// Brokers gives what is known of a broker; see snapshot.Store.
type Brokers interface {
	Broker(ref queue.BrokerRef) (*snapshot.Broker, bool)
}

// Writer writes the status of every CeleryBroker while this replica leads. Make it with
// New.
type Writer struct {
	client    dynamic.Interface
	resources Resources
	brokers   Brokers
	workers   func(queue.BrokerRef) error
	untold    func(queue.BrokerRef) error
	leads     func() bool
	log       *slog.Logger

	written  map[types.UID]written
	reported string // the text of the failure that was logged last
}

// written is what was written last of an object, and when.
type written struct {
	status v1alpha1.CeleryBrokerStatus
	at     time.Time
}

// New makes a writer. Workers says why the workers of a broker are not heard, or not
// asked; nil if they are. Untold says why a broker does not tell of messages for targets
// that sleep; nil if it does. It needs the right to patch celerybrokers/status.
func New(client dynamic.Interface, resources Resources, brokers Brokers, workers, untold func(queue.BrokerRef) error, leads func() bool, log *slog.Logger) *Writer {
	return &Writer{
		client: client, resources: resources, brokers: brokers, workers: workers, untold: untold, leads: leads, log: log,
		written: map[types.UID]written{},
	}
}

// Run writes until ctx is done and then returns nil. It blocks. What cannot be written is
// logged once, and tried again.
func (w *Writer) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !w.leads() {
			clear(w.written) // who leads meanwhile writes something else
			continue
		}
		if err := w.writeAll(ctx, time.Now()); ctx.Err() == nil {
			w.report(err)
		}
	}
}

// writeAll writes each status that is due, and returns what went wrong first.
func (w *Writer) writeAll(ctx context.Context, now time.Time) error {
	var first error
	known := map[types.UID]written{}
	for _, f := range w.resources.All() {
		before, ok := w.written[f.UID]
		if !ok {
			before = written{status: f.Status}
		}
		f.Status = before.status
		v := w.view(f.Ref())
		status := statusOf(f, v, now)
		if due(before.status, status, now.Sub(before.at)) {
			count(&status, v, now)
			err := w.change(ctx, f, status)
			if first == nil {
				first = err
			}
			before.at = now // also of a failure: the API server is not to be flooded
			if err == nil {
				before.status = status
			}
		}
		known[f.UID] = before
	}
	w.written = known
	return first
}

func (w *Writer) view(ref queue.BrokerRef) view {
	v := view{workers: w.workers(ref), untold: w.untold(ref)}
	v.broker, _ = w.brokers.Broker(ref)
	return v
}

// change writes a status in place of that of f, unless it is the same.
func (w *Writer) change(ctx context.Context, f brokerresource.Found, status v1alpha1.CeleryBrokerStatus) error {
	if equality.Semantic.DeepEqual(f.Status, status) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := patchOf(status)
	if err != nil {
		return err
	}
	objects := w.client.Resource(brokerresource.Resource()).Namespace(f.Namespace)
	_, err = objects.Patch(ctx, f.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil, apierrors.IsNotFound(err): // it was deleted meanwhile
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("write the status of %s %s: celery-hpa lacks the right to patch %s/status: %w", v1alpha1.Kind, f.Ref(), v1alpha1.Plural, err)
	}
	return fmt.Errorf("write the status of %s %s: %w", v1alpha1.Kind, f.Ref(), err)
}

// patchOf replaces the whole status: what is not known any more is taken away.
func patchOf(status v1alpha1.CeleryBrokerStatus) ([]byte, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	fields := map[string]any{}
	for _, name := range []string{"lastSampleTime", "queues", "backlog", "inFlight", "missingRights"} {
		fields[name] = nil
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	return json.Marshal(map[string]any{"status": fields})
}

// report logs a failure if it is another than last time.
func (w *Writer) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == w.reported {
		return
	}
	w.reported = text
	if err != nil {
		w.log.Warn("The status of a CeleryBroker cannot be written", "error", err)
	}
}
