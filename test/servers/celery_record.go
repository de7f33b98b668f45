package servers

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// CeleryRecord is the ground truth: what the workers of one application have
// done, by task id. A task that was executed twice is listed twice.
type CeleryRecord struct {
	// Started lists executions in the order in which they began.
	Started []string
	// Finished lists executions in the order in which they ended. With late
	// acknowledgement a task stands here just before it is acknowledged.
	Finished []string

	ready []string
}

// Record reads what has happened so far. It is complete up to some moment during
// the call.
func (c *Celery) Record(t testing.TB) CeleryRecord {
	t.Helper()
	text, err := os.ReadFile(c.recordPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read what the Celery workers did: %v", err)
	}
	return parseRecord(string(text))
}

func parseRecord(text string) CeleryRecord {
	var record CeleryRecord
	lists := map[string]*[]string{
		"started": &record.Started, "finished": &record.Finished, "ready": &record.ready,
	}
	for line := range strings.Lines(text) {
		verb, subject, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if list, known := lists[verb]; known {
			*list = append(*list, subject)
		}
	}
	return record
}
