package idle_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// TestTranscripts holds conversations with one target: each line of a "look" is an
// observation at some time, answered by a decision. An observation goes on as before
// but for what its line says; "from=1s to=300s" repeats it each second, and answers
// where the decision changes. "go test -rewrite" writes the answers anew.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var c *conversation
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "spec":
				c = &conversation{spec: specOf(t, d), o: idle.Observation{Interval: time.Second, Leads: true}}
				return ""
			case "look":
				var answers strings.Builder
				for line := range strings.Lines(d.Input) {
					answers.WriteString(c.look(t, strings.Fields(line)))
				}
				return answers.String()
			}
			t.Fatalf("%s: there is no command %q", d.Pos, d.Cmd)
			return ""
		})
	})
}

// conversation is with one target.
type conversation struct {
	spec  idle.Spec
	state idle.State
	o     idle.Observation
	depth queue.Depth
	noCount, noHeld, noQueue, noSize, noWorkers,
	noWanted bool
}

// start is the time 0s.
func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func specOf(t *testing.T, d *datadriven.TestData) idle.Spec {
	spec := idle.Spec{Window: 5 * time.Minute, Floor: 1, Ceiling: 10}
	for _, arg := range d.CmdArgs {
		switch value := strings.Join(arg.Vals, " "); arg.Key {
		case "window":
			spec.Window = duration(t, value)
		case "floor":
			spec.Floor = int32(number(t, value))
		case "ceiling":
			spec.Ceiling = int32(number(t, value))
		case "paused":
			spec.Paused = true
		case "hpa-sleeps":
			spec.HPASleeps = true
		case "foreign":
			spec.Foreign = value
		default:
			t.Fatalf("%s: a spec has no %q", d.Pos, arg.Key)
		}
	}
	return spec
}

// look takes in one line and answers.
func (c *conversation) look(t *testing.T, words []string) string {
	from, to, fresh := time.Duration(0), time.Duration(0), false
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "at":
			from = duration(t, value)
			to = from
		case "from":
			from = duration(t, value)
		case "to":
			to = duration(t, value)
		case "afresh":
			fresh = true
		default:
			c.see(t, key, value)
		}
	}
	var answers strings.Builder
	before := ""
	for at := from; at <= to; at += time.Second {
		d := c.decide(start().Add(at), fresh)
		answer := fmt.Sprintf("%s, %s: %s", d.Action, d.Cause, d.Reason)
		if d.Action == idle.Wake || d.Action == idle.Raise {
			answer = fmt.Sprintf("%s to %d, %s: %s", d.Action, d.Replicas, d.Cause, d.Reason)
		}
		if answer != before {
			fmt.Fprintf(&answers, "%s %s%s\n", at, answer, when(d))
		}
		before = answer
	}
	return answers.String()
}

// when tells of the times of a decision.
func when(d idle.Decision) string {
	text := fmt.Sprintf(" (again in %s", d.After)
	if d.Remaining > 0 {
		text += fmt.Sprintf(", %s remain", d.Remaining)
	}
	return text + ")"
}

// see changes what is known.
func (c *conversation) see(t *testing.T, key, value string) {
	t.Helper()
	isUnknown := func(what *bool) func() { return func() { *what = value == "unknown" } }
	counts := func(what *int64) func() { return func() { *what = number(t, value) } }
	sees := map[string]func(){
		"replicas":  func() { c.o.Replicas = int32(number(t, value)) },
		"pods":      func() { c.o.Pods = int(number(t, value)) },
		"leads":     func() { c.o.Leads = value == "true" },
		"size":      isUnknown(&c.noSize),
		"counts":    isUnknown(&c.noCount),
		"held":      isUnknown(&c.noHeld),
		"queues":    isUnknown(&c.noQueue),
		"backlog":   counts(&c.depth.Backlog.N),
		"in-flight": counts(&c.depth.InFlight.N),
		"scheduled": counts(&c.depth.Scheduled.N),
		"wanted": func() {
			if c.noWanted = value == "unknown"; !c.noWanted {
				c.o.Wanted = int32(number(t, value))
			}
		},
		"workers": func() {
			c.noWorkers, c.o.Workers = value == "unknown", nil
			if value == "busy" {
				c.o.Workers = []idle.Worker{{Name: "worker-x", Reason: "worker celery@worker-x executes 1 tasks"}}
			}
		},
		"samples": func() {
			c.depth.Backlog.At = time.Time{}
			if value != "new" { // the last one was then
				c.depth.Backlog.At = start().Add(duration(t, value))
			}
		},
	}
	if sees[key] == nil {
		t.Fatalf("nobody sees %q", key)
	}
	sees[key]()
}

// decide asks about what is known.
func (c *conversation) decide(now time.Time, fresh bool) idle.Decision {
	o := c.o
	depth := c.depth
	for _, count := range []*queue.Count{&depth.Backlog, &depth.InFlight, &depth.Scheduled} {
		if count.At.IsZero() {
			count.At = now
		}
		if c.noCount {
			*count = queue.Unknown(errors.New("the broker does not answer"))
		}
	}
	if c.noHeld {
		depth.InFlight = queue.Unknown(errors.New("the management API does not answer"))
	}
	o.Queues = []idle.Queue{{Name: "redis/celery", Depth: depth}}
	if c.noQueue {
		o.Queues, o.QueuesErr = nil, errors.New("there is no such queue")
	}
	if c.noSize {
		o.ReplicasErr = errors.New("the API server does not answer")
	}
	if c.noWorkers {
		o.WorkersErr = errors.New("heartbeats are not heard")
	}
	if c.noWanted {
		o.WantedErr = errors.New("no metric is known")
	}
	ask := idle.Decide
	if fresh {
		ask = idle.Confirm
	}
	var d idle.Decision
	c.state, d = ask(c.spec, c.state, o, now)
	return d
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
