package child

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// PollInterval is how often a state is looked at that nothing announces.
const PollInterval = 20 * time.Millisecond

// FreePort returns a port that nobody listens on at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// WriteLines writes a configuration that its owner alone may read, and returns
// its path.
func WriteLines(t testing.TB, path string, lines []string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatalf("write a configuration: %v", err)
	}
	return path
}
