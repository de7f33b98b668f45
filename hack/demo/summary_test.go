package main

import (
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// aBurst is of two tasks, and went as promised after a first sleep.
func aBurst() summary {
	began := time.Unix(1000, 0)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	return summary{
		sent: 2, at: playground.Sent{First: began, Last: at(10)},
		last:        playground.Status{Started: 2, Finished: 2},
		allFinished: at(9000),
		history: []playground.Change{
			{At: at(-9000), Replicas: 1},
			{At: at(-1000), Replicas: 0},
			{At: at(12), Replicas: 1},
			{At: at(250), Replicas: 5},
			{At: at(12000), Replicas: 1},
			{At: at(15000), Replicas: 0},
		},
	}
}

func TestSummaryCountsFromTheFirstMessage(t *testing.T) {
	text := aBurst().String()
	for _, want := range []string{"2 of 2", "after 12ms", "after 250ms: 5 workers", "finished    after 9s", "to zero          after 15s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the summary lacks %q:\n%s", want, text)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		rule   string
		change func(*summary)
		want   string
	}{
		{"a burst that went as promised is no error", func(*summary) {}, ""},
		{"a task that never finished is one", func(s *summary) { s.last.Finished = 1 }, "1 finished"},
		{"a task that ran twice is one", func(s *summary) { s.last.Started = 3 }, "3 were started"},
		{"a killed worker is one", func(s *summary) { s.last.Killed = 1 }, "1 workers were killed"},
		{"a fleet that never grew is one", func(s *summary) { s.history = s.history[:3] }, "never became more"},
		{"a fleet that does not end at zero is one", func(s *summary) { s.history = s.history[:5] }, "0 times"},
		{"a fleet that went to zero on its way is one", func(s *summary) { s.history = append(s.history, s.history[3:]...) }, "2 times"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			s := aBurst()
			c.change(&s)
			got := ""
			if err := s.verdict(); err != nil {
				got = err.Error()
			}
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("the verdict is %q, want %q", got, c.want)
			}
		})
	}
}
