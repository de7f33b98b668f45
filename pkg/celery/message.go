package celery

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// ErrUnackedShape says that a value of the unacked hash does not tell which
// queue its message came from. It quotes nothing of the value.
var ErrUnackedShape = errors.New("not of the shape [message, exchange, routing key] that kombu writes")

// Unacked is what counting needs to know of a message that a worker holds.
type Unacked struct {
	// Exchange is empty for the anonymous one, which Celery uses; the routing
	// key is then the name of the queue.
	Exchange   string
	RoutingKey string
	// ID is the task's, empty if the message does not tell.
	ID string
	// ETA is when the task may run; zero if at once.
	ETA time.Time
}

// envelope is a message without its body, which only protocol 1 needs.
type envelope struct {
	Headers struct {
		Task json.RawMessage `json:"task"`
		ID   json.RawMessage `json:"id"`
		ETA  json.RawMessage `json:"eta"`
	} `json:"headers"`
	Properties struct {
		CorrelationID json.RawMessage `json:"correlation_id"`
		BodyEncoding  string          `json:"body_encoding"`
		DeliveryInfo  struct {
			Exchange   *string `json:"exchange"`
			RoutingKey *string `json:"routing_key"`
		} `json:"delivery_info"`
	} `json:"properties"`
}

// DecodeUnacked reads a value of the unacked hash. Where the value is the bare
// message, or names no routing key, the message's own delivery_info is taken.
// An ETA that cannot be read counts as none: such a message is work to be done
// now, which keeps its worker. The only error is ErrUnackedShape.
func DecodeUnacked(value []byte) (Unacked, error) {
	message, u, routed := splitUnacked(value)
	var e envelope
	parsed := isObject(message) && json.Unmarshal(message, &e) == nil
	if !routed && parsed {
		u, routed = e.route()
	}
	if !routed {
		return Unacked{}, ErrUnackedShape
	}
	if parsed {
		u.ID, u.ETA = e.id(), e.eta(message)
	}
	return u, nil
}

// splitUnacked takes the value apart; routed is false where no routing key
// stands beside the message.
func splitUnacked(value []byte) (message json.RawMessage, u Unacked, routed bool) {
	if isObject(value) {
		return value, Unacked{}, false
	}
	var parts [4]json.RawMessage // what is beyond is passed over
	if json.Unmarshal(value, &parts) != nil || parts[0] == nil {
		return nil, Unacked{}, false
	}
	if parts[2] == nil || parts[3] != nil {
		return parts[0], Unacked{}, false
	}
	exchange, okExchange := stringOrNull(parts[1])
	routingKey, okKey := stringOrNull(parts[2])
	routed = okExchange && okKey && (exchange != "" || routingKey != "")
	return parts[0], Unacked{Exchange: exchange, RoutingKey: routingKey}, routed
}

// isObject reports whether JSON text begins as an object.
func isObject(text []byte) bool {
	for _, c := range text {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		}
		return c == '{'
	}
	return false
}

// stringOrNull decodes a JSON string; null is the empty string.
func stringOrNull(raw json.RawMessage) (string, bool) {
	var s *string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	if s == nil {
		return "", true
	}
	return *s, true
}

// route is where the message says that it was published to.
func (e envelope) route() (Unacked, bool) {
	info := e.Properties.DeliveryInfo
	if info.RoutingKey == nil || *info.RoutingKey == "" {
		return Unacked{}, false
	}
	u := Unacked{RoutingKey: *info.RoutingKey}
	if info.Exchange != nil {
		u.Exchange = *info.Exchange
	}
	return u, true
}

// id is the task's. With protocol 1 the headers have none, but every message
// carries it as its correlation id (celery/app/amqp.py, as_task_v1).
func (e envelope) id() string {
	if id, _ := stringOrNull(e.Headers.ID); id != "" {
		return id
	}
	id, _ := stringOrNull(e.Properties.CorrelationID)
	return id
}

// eta looks into the headers (protocol 2), and into the body only where the
// headers name no task (protocol 1).
func (e envelope) eta(message []byte) time.Time {
	raw := e.Headers.ETA
	if raw == nil && e.Headers.Task == nil {
		raw = bodyETA(message, e.Properties.BodyEncoding)
	}
	text, _ := stringOrNull(raw)
	eta, err := ParseETA(text)
	if err != nil {
		return time.Time{}
	}
	return eta
}

// bodyETA reads the ETA of a message of protocol 1, whose body is one JSON
// object, and nothing else of it.
func bodyETA(message []byte, encoding string) json.RawMessage {
	var m struct {
		Body string `json:"body"`
	}
	if json.Unmarshal(message, &m) != nil {
		return nil
	}
	body := []byte(m.Body)
	if encoding == "base64" {
		var err error
		if body, err = base64.StdEncoding.DecodeString(m.Body); err != nil {
			return nil
		}
	}
	var task struct {
		ETA json.RawMessage `json:"eta"`
	}
	if !isObject(body) || json.Unmarshal(body, &task) != nil {
		return nil
	}
	return task.ETA
}

// ParseETA reads the ISO-8601 forms that Python's datetime.isoformat writes,
// and those that celery.utils.iso8601 adds. A time without a zone is UTC, which
// is how Celery sends it (setting enable_utc).
func ParseETA(s string) (time.Time, error) {
	layouts := []string{
		"2006-01-02T15:04:05Z07:00",
		"2006-01-02T15:04:05",
		"2006-01-02 15:04:05Z07:00",
		"2006-01-02 15:04:05",
		"2006-01-02T15:04:05Z07:00:00",
		"2006-01-02T15:04:05Z0700",
		"2006-01-02T15:04Z07:00",
		"2006-01-02T15:04",
		"2006-01-02",
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("not an ISO-8601 time")
}
