package servers

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// Transcript is what a program has said. The zero value is empty. Its methods are safe for
// concurrent use.
type Transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (s *Transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// String is all of it so far.
func (s *Transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// Count returns how often a text was said.
func (s *Transcript) Count(text string) int { return strings.Count(s.String(), text) }

// FreePort is one of loopback on which nobody listens, for a program of the test's own.
func FreePort(t testing.TB) int { return child.FreePort(t) }
