package celery_test

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

func TestSentAt(t *testing.T) {
	at := time.Date(2026, time.March, 1, 12, 0, 0, 500e6, time.UTC)
	tests := []struct{ rule, message string }{
		{"a header in seconds", `{"headers": {"timestamp": 1772366400.5}}`},
		{"a property in milliseconds", `{"headers": {"timestamp": null}, "properties": {"timestamp": 1772366400500}}`},
		{"a header in ISO 8601", `{"headers": {"timestamp": "2026-03-01T12:00:00.500+00:00"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := celery.SentAt([]byte(tt.message)); !got.Equal(at) {
				t.Errorf("sent at %s, want %s", got, at)
			}
		})
	}
	for _, message := range []string{``, `{}`, `[]`, `{"headers": {"timestamp": -1}}`, `{"headers": {"timestamp": 12}}`, `{"headers": {"timestamp": 1e300}}`, `{"headers": {"timestamp": "soon"}}`, `{"headers": {"timestamp": {}}}`} {
		if got := celery.SentAt([]byte(message)); !got.IsZero() {
			t.Errorf("%s: sent at %s, want no time", message, got)
		}
	}
}

func FuzzSentAt(f *testing.F) {
	f.Add([]byte(`{"headers": {"timestamp": 1772366400.5}}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		at := celery.SentAt(message)
		if !at.IsZero() && at.After(time.Date(9999, time.December, 31, 23, 59, 59, 999e6, time.UTC)) {
			t.Errorf("%q was sent at %s", message, at)
		}
	})
}
