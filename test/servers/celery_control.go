package servers

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// inspectTimeout bounds how long the workers may take to answer.
const inspectTimeout = 20 * time.Second

// Held is what workers say of the tasks that they hold, by task id.
type Held struct {
	// Active are executing.
	Active []string
	// Reserved wait for a process or thread to execute them.
	Reserved []string
	// Scheduled wait for their ETA.
	Scheduled []string
}

// OpenGate lets all tasks go on that wait for a gate, and all that will.
func (c *Celery) OpenGate(t testing.TB, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.folder, "gate-"+name), nil, 0o600); err != nil {
		t.Fatalf("open gate %s: %v", name, err)
	}
}

// Purge makes kombu delete the messages of a queue that no worker holds, and
// returns how many there were.
func (c *Celery) Purge(t testing.TB, queue string) int {
	t.Helper()
	var answer struct{ Purged int }
	c.ask(t, map[string]any{"do": "purge", "queue": queue}, &answer)
	return answer.Purged
}

// Inspect asks workers, by node name, for example celery@worker. They are asked
// for each kind of tasks one after the other, and must all answer: a busy worker
// of the solo pool cannot.
func (c *Celery) Inspect(t testing.TB, nodes ...string) Held {
	t.Helper()
	var held Held
	c.ask(t, map[string]any{"do": "inspect", "nodes": nodes, "timeout": inspectTimeout.Seconds()}, &held)
	return held
}
