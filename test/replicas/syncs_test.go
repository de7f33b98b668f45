package replicas_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// auditPolicy has the API server note what the HPA controller reads.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["` + hpaUser + `"]
  resources: [{group: external.metrics.k8s.io}]
- level: None
`

// syncs are the HPAs' looks at their metrics, as the API server has noted them. An HPA
// here has one metric, of a queue of its own, which it reads once in each sync: a sync
// fails if that read does.
type syncs struct {
	log   *os.File
	lines *bufio.Reader
	part  string // of a line that is not there as a whole yet

	ok       map[string]int  // by what is read: how many went well
	failing  map[string]bool // the last one did not
	failures []string
	twice    []string
}

func openSyncs(t *testing.T, path string) *syncs {
	t.Helper()
	log, err := os.Open(path)
	check(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return &syncs{log: log, lines: bufio.NewReader(log), ok: map[string]int{}, failing: map[string]bool{}}
}

// read takes in what has been noted since.
func (s *syncs) read(t *testing.T) {
	t.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		s.part += line
		if errors.Is(err, io.EOF) {
			return
		}
		check(t, err)
		s.take(t, s.part)
		s.part = ""
	}
}

func (s *syncs) take(t *testing.T, line string) {
	t.Helper()
	var event struct {
		RequestURI     string
		StageTimestamp time.Time
		ResponseStatus struct{ Code int }
	}
	check(t, json.Unmarshal([]byte(line), &event))
	name := event.RequestURI
	if event.ResponseStatus.Code == http.StatusOK {
		s.ok[name]++
		s.failing[name] = false
		return
	}
	_, selector, _ := strings.Cut(name, "?")
	failure := fmt.Sprintf("%s at %s: %d", selector, event.StageTimestamp.Format(time.StampMilli), event.ResponseStatus.Code)
	s.failures = append(s.failures, failure)
	if s.failing[name] {
		s.twice = append(s.twice, failure)
	}
	s.failing[name] = true
}

// total is how many went well.
func (s *syncs) total() (n int) {
	for _, ok := range s.ok {
		n += ok
	}
	return n
}

// awaitAll blocks until each of so many HPAs has synced well once more.
func (s *syncs) awaitAll(t *testing.T, hpas int) {
	t.Helper()
	s.read(t)
	before := maps.Clone(s.ok)
	eventually.Succeeds(t, patience, "each HPA has synced", func() error {
		s.read(t)
		if len(s.ok) < hpas {
			return fmt.Errorf("%d of %d HPAs have read their metric", len(s.ok), hpas)
		}
		for name, n := range s.ok {
			if n == before[name] {
				return fmt.Errorf("%s was not read again", name)
			}
		}
		return nil
	})
}
