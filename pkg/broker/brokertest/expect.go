package brokertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// settleTime bounds the wait for a broker whose counts come late.
const settleTime = 30 * time.Second

// Expect fails the test unless a sample has exactly the counts wanted, all of
// them known. Queues that are not named in want are not looked at.
func Expect(t testing.TB, b Broker, d Driver, want map[string]Counts) {
	t.Helper()
	ExpectSample(t, b, d, func(s *queue.Sample) string { return diff(s, want) })
}

// ExpectSample fails the test unless a sample satisfies a check, which returns
// what is wrong.
func ExpectSample(t testing.TB, b Broker, d Driver, check func(*queue.Sample) string) {
	t.Helper()
	deadline := time.Now().Add(settleTime)
	for {
		s, err := d.Sample(context.Background())
		wrong := ""
		if err != nil {
			wrong = err.Error()
		} else {
			wrong = check(s)
		}
		if wrong == "" {
			return
		}
		if !b.Settles() || time.Now().After(deadline) {
			t.Fatalf("the sample is not as expected: %s", wrong)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// diff compares known counts.
func diff(s *queue.Sample, want map[string]Counts) string {
	got := map[string]Counts{}
	for name := range want {
		depth, ok := s.Queues[name]
		if !ok {
			return fmt.Sprintf("queue %q is missing", name)
		}
		for _, c := range []queue.Count{depth.Backlog, depth.InFlight, depth.Scheduled} {
			if c.Err != nil {
				return fmt.Sprintf("queue %q: a count is unknown: %v", name, c.Err)
			}
			if !c.At.Equal(s.At) {
				return fmt.Sprintf("queue %q: a count is of %v, the sample of %v", name, c.At, s.At)
			}
		}
		got[name] = Counts{depth.Backlog.N, depth.InFlight.N, depth.Scheduled.N}
	}
	return cmp.Diff(want, got)
}

// ExpectError fails the test unless a sample fails with a text that holds the
// words and no credential.
func ExpectError(t testing.TB, d Driver, words ...string) {
	t.Helper()
	s, err := d.Sample(context.Background())
	if err == nil {
		t.Fatalf("the sample is %+v, want an error with %q", s, words)
	}
	CheckText(t, err, words...)
}

// CheckText fails the test unless an error holds the words and no credential.
func CheckText(t testing.TB, err error, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), Secret) || strings.Contains(err.Error(), Secret[:6]) {
		t.Errorf("the error shows a credential: %v", err)
	}
}
