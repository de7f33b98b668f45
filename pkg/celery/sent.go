package celery

import (
	"encoding/json"
	"time"
)

// SentAt is when a message was sent, by a header or a property "timestamp"; zero if it
// has none that makes sense, as Celery's own have not. Message is the envelope of
// kombu's virtual transports. The time is a number of seconds or milliseconds since
// 1970, or written as ISO 8601.
func SentAt(message []byte) time.Time {
	var e struct {
		Headers struct {
			Timestamp json.RawMessage `json:"timestamp"`
		} `json:"headers"`
		Properties struct {
			Timestamp json.RawMessage `json:"timestamp"`
		} `json:"properties"`
	}
	if json.Unmarshal(message, &e) != nil {
		return time.Time{}
	}
	for _, raw := range []json.RawMessage{e.Headers.Timestamp, e.Properties.Timestamp} {
		if at := stamp(raw); !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

// stamp reads a time. Numbers below a billion, in seconds before September 2001, are
// none; those above a trillion are milliseconds.
func stamp(raw json.RawMessage) time.Time {
	const earliest, milliseconds, latest = 1e9, 1e12, 1e14
	var n float64
	if raw == nil || string(raw) == "null" {
		return time.Time{}
	}
	if json.Unmarshal(raw, &n) != nil {
		text, _ := stringOrNull(raw)
		at, err := ParseETA(text)
		if err != nil {
			return time.Time{}
		}
		return at
	}
	switch {
	case n < earliest || n >= latest:
		return time.Time{}
	case n >= milliseconds:
		return time.UnixMilli(int64(n)).UTC()
	}
	return time.UnixMicro(int64(n * 1e6)).UTC()
}
