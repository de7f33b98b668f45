package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// maxEvent bounds an event, in bytes. A heartbeat has about 400.
	maxEvent = 16 << 10
	// maxNode bounds a node name, in bytes: a name and a host name of DNS.
	maxNode = 512
	// maxHost is the longest host name that Linux knows, in bytes.
	maxHost = 63
	// maxFrequency bounds how seldom a worker may say to send heartbeats.
	maxFrequency = time.Hour
	// maxTaken bounds how many tasks a worker may say to have taken: a thousand a
	// second for three years.
	maxTaken = 100_000_000_000
)

// ErrEvent says that a message is no event of a worker's that can be understood.
// It quotes nothing of the message.
var ErrEvent = errors.New("no event of a worker")

// WorkerState is what a worker says that it is doing.
type WorkerState int

// The states, by the type of the event.
const (
	// WorkerOnline is said once, at the start: worker-online.
	WorkerOnline WorkerState = iota + 1
	// WorkerBeating is said again and again: worker-heartbeat.
	WorkerBeating
	// WorkerOffline is said at the beginning of a shutdown, with tasks still
	// executing, and nothing after it: worker-offline.
	WorkerOffline
)

// WorkerEvent is what a worker says of itself. Which queues it serves it does not
// say.
type WorkerEvent struct {
	State WorkerState
	// Node is the worker's name, "celery@host".
	Node string
	// PID tells apart workers of one name.
	PID celery.Number
	// Frequency is the time from one heartbeat to the next, zero if it is not told
	// or makes no sense.
	Frequency time.Duration
	// Active is how many tasks execute, Processed how many the worker has taken
	// since its start. A heartbeat that was asked for by remote control has
	// neither. Active is not known without Processed: Celery writes both.
	Active, Processed celery.Number
}

// Host is the part of the node name behind the "@", as HostName writes it: of a worker
// in a pod the pod's name.
func (e WorkerEvent) Host() string {
	_, host, _ := strings.Cut(e.Node, "@")
	return HostName(host)
}

// HostName is a name without a domain, and as short as Kubernetes makes the host name of
// a pod (k8s.io/kubernetes/pkg/kubelet/util, TruncatePodHostnameIfNeeded), so that a
// node that is named after a long pod and one that is named after its host are the same.
func HostName(name string) string {
	name, _, _ = strings.Cut(name, ".")
	if len(name) > maxHost {
		name = strings.TrimRight(name[:maxHost], "-.")
	}
	return name
}

// DecodeWorkerEvent reads the body of an event as RabbitMQ delivers it. Anything
// but JSON is an error, since nothing of it is to be executed; so is a message
// that is compressed, too long, or names no node. A count that makes no sense is
// merely not known. Every error wraps ErrEvent.
func DecodeWorkerEvent(contentType, contentEncoding string, body []byte) (WorkerEvent, error) {
	if len(body) > maxEvent {
		return WorkerEvent{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrEvent, len(body), maxEvent)
	}
	if contentType != "application/json" {
		return WorkerEvent{}, fmt.Errorf("%w: it is not JSON (setting event_serializer)", ErrEvent)
	}
	if encoding := strings.ToLower(contentEncoding); encoding != "" && encoding != "utf-8" {
		return WorkerEvent{}, fmt.Errorf("%w: its encoding is not utf-8", ErrEvent)
	}
	return decodeEvent(body)
}

// DecodePublishedEvent reads an event as Redis delivers it to subscribers: within
// the envelope of kombu's virtual transports.
func DecodePublishedEvent(message []byte) (WorkerEvent, error) {
	if len(message) > 2*maxEvent { // base64, and the envelope
		return WorkerEvent{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrEvent, len(message), 2*maxEvent)
	}
	m, err := openEnvelope(message)
	if err != nil {
		return WorkerEvent{}, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	return DecodeWorkerEvent(m.contentType, m.contentEncoding, m.body)
}

// decodeEvent reads the event itself.
func decodeEvent(body []byte) (WorkerEvent, error) {
	var event struct {
		Type      string          `json:"type"`
		Hostname  string          `json:"hostname"`
		PID       celery.Number   `json:"pid"`
		Freq      json.RawMessage `json:"freq"`
		Active    celery.Number   `json:"active"`
		Processed celery.Number   `json:"processed"`
	}
	if json.Unmarshal(body, &event) != nil {
		return WorkerEvent{}, fmt.Errorf("%w: its body is not the object that Celery writes", ErrEvent)
	}
	states := map[string]WorkerState{"worker-online": WorkerOnline, "worker-heartbeat": WorkerBeating, "worker-offline": WorkerOffline}
	e := WorkerEvent{
		State: states[event.Type], Node: event.Hostname, PID: event.PID,
		Frequency: frequency(event.Freq), Active: event.Active.UpTo(maxSlots), Processed: event.Processed.UpTo(maxTaken),
	}
	if !e.Processed.Known {
		e.Active = celery.Number{}
	}
	if e.State == 0 {
		return WorkerEvent{}, fmt.Errorf("%w: its type is another", ErrEvent)
	}
	if !isNode(e.Node) {
		return WorkerEvent{}, fmt.Errorf("%w: it names no node of the form name@host", ErrEvent)
	}
	return e, nil
}

// frequency is a number of seconds.
func frequency(raw json.RawMessage) time.Duration {
	var seconds float64
	if raw == nil || json.Unmarshal(raw, &seconds) != nil {
		return 0
	}
	if seconds <= 0 || seconds > maxFrequency.Seconds() {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// isNode reports whether a name can be a node's, and be shown.
func isNode(name string) bool {
	before, after, found := strings.Cut(name, "@")
	if !found || before == "" || after == "" || len(name) > maxNode || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, unicode.IsControl)
}
