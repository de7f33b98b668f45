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
	ExpectSample(t, b, d, func(s *queue.Sample) string { return diff(b.Traits(), s, want) })
}

// ExpectSample fails the test unless a sample satisfies a check, which returns
// what is wrong.
func ExpectSample(t testing.TB, b Broker, d Driver, check func(*queue.Sample) string) {
	t.Helper()
	if b.Traits().Settles {
		eventually(t, d, check)
		return
	}
	s, err := d.Sample(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if wrong := check(s); wrong != "" {
		t.Fatalf("the sample is not as expected: %s", wrong)
	}
}

// ExpectEventually polls until a sample has the counts, of a broker that tells
// everything at once.
func ExpectEventually(t testing.TB, d Driver, want map[string]Counts) {
	t.Helper()
	eventually(t, d, func(s *queue.Sample) string { return diff(Traits{}, s, want) })
}

// expectInTheEnd is ExpectEventually for any broker.
func expectInTheEnd(t testing.TB, b Broker, d Driver, want map[string]Counts) {
	t.Helper()
	eventually(t, d, func(s *queue.Sample) string { return diff(b.Traits(), s, want) })
}

// eventually polls until a sample satisfies a check, whatever errors come before.
func eventually(t testing.TB, d Driver, check func(*queue.Sample) string) {
	t.Helper()
	for deadline := time.Now().Add(settleTime); ; time.Sleep(20 * time.Millisecond) {
		wrong := ""
		s, err := d.Sample(context.Background())
		if err != nil {
			wrong = err.Error()
		} else {
			wrong = check(s)
		}
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no sample within %s is as expected: %s", settleTime, wrong)
		}
	}
}

// diff compares known counts.
func diff(is Traits, s *queue.Sample, want map[string]Counts) string {
	got := map[string]Counts{}
	for name, expected := range want {
		depth, ok := s.Queues[name]
		if !ok {
			return fmt.Sprintf("queue %q is missing", name)
		}
		if wrong := hidden(is, &depth, expected); wrong != "" {
			return fmt.Sprintf("queue %q: %s", name, wrong)
		}
		for _, c := range []queue.Count{depth.Backlog, depth.InFlight, depth.Scheduled} {
			if c.Err != nil {
				return fmt.Sprintf("queue %q: a count is unknown: %v", name, c.Err)
			}
			if wrong := wrongTime(is, c.At, s.At); wrong != "" {
				return fmt.Sprintf("queue %q: %s", name, wrong)
			}
		}
		got[name] = Counts{depth.Backlog.N, depth.InFlight.N, depth.Scheduled.N}
	}
	return cmp.Diff(want, got)
}

// hidden checks what a broker that hides ETAs says instead of how many messages
// are scheduled, and puts the number in its place.
func hidden(is Traits, depth *queue.Depth, want Counts) string {
	if !is.HidesETA || want.InFlight == 0 {
		return ""
	}
	if depth.Scheduled.Err == nil {
		return fmt.Sprintf("scheduled is %d, which nobody can know", depth.Scheduled.N)
	}
	if tasks := depth.Tasks(); tasks.Err == nil && tasks.N != depth.Backlog.N+depth.InFlight.N {
		return fmt.Sprintf("tasks are %d, want all of %d and %d", tasks.N, depth.Backlog.N, depth.InFlight.N)
	}
	depth.Scheduled = queue.Known(want.Scheduled, depth.InFlight.At)
	return ""
}

// wrongTime says what is wrong with the time of a count.
func wrongTime(is Traits, at, sample time.Time) string {
	if at.Equal(sample) || is.SeveralTimes && at.Before(sample) && !at.IsZero() {
		return ""
	}
	return fmt.Sprintf("a count is of %v, the sample of %v", at, sample)
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
	if err == nil {
		t.Fatalf("there is no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), Secret) || strings.Contains(err.Error(), Secret[:6]) {
		t.Errorf("the error shows a credential: %v", err)
	}
}
