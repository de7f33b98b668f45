package idle

import (
	"fmt"
	"slices"
	"strings"
)

// Blocker is something that keeps a target from going to zero.
type Blocker struct {
	// Cause is Work, Busy or Unknown.
	Cause Cause
	// Subject is what it is about, like "queue redis/celery" or "pod worker-x".
	Subject string
	// Text is a clause for people that begins with the subject and tells of now, like
	// "queue redis/celery: 3 messages wait".
	Text string
}

// Blockers lists what of an observation keeps a target from going to zero: whatever
// waits, runs or is held, and whatever is not known. None is the only proof of
// idleness that there is.
func Blockers(o Observation) []Blocker {
	var found []Blocker
	add := func(cause Cause, subject, format string, args ...any) {
		found = append(found, Blocker{cause, subject, subject + ": " + fmt.Sprintf(format, args...)})
	}
	if o.QueuesErr != nil {
		add(Unknown, "its queues", "%v", o.QueuesErr)
	} else if len(o.Queues) == 0 {
		add(Unknown, "its queues", "none is known")
	}
	for _, q := range o.Queues {
		found = append(found, blockersOf(q)...)
	}
	if o.WorkersErr != nil {
		add(Unknown, "its workers", "%v", o.WorkersErr)
	}
	for _, w := range o.Workers {
		add(Busy, "pod "+w.Name, "%s", w.Reason)
	}
	return found
}

func blockersOf(q Queue) []Blocker {
	subject := "queue " + q.Name
	switch backlog, inFlight := q.Depth.Backlog, q.Depth.InFlight; {
	case backlog.Err != nil:
		return []Blocker{{Unknown, subject, fmt.Sprintf("%s: %v", subject, backlog.Err)}}
	case inFlight.Err != nil:
		return []Blocker{{Unknown, subject, fmt.Sprintf("%s: %v", subject, inFlight.Err)}}
	case backlog.N > 0 && inFlight.N > 0:
		return []Blocker{{Work, subject, fmt.Sprintf("%s: %s, %s", subject, waiting(backlog.N), held(q))}}
	case backlog.N > 0:
		return []Blocker{{Work, subject, fmt.Sprintf("%s: %s", subject, waiting(backlog.N))}}
	case inFlight.N > 0:
		return []Blocker{{Work, subject, fmt.Sprintf("%s: %s", subject, held(q))}}
	}
	return nil
}

func waiting(n int64) string {
	if n == 1 {
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

// held tells of messages in flight, and how many of them wait for their time.
func held(q Queue) string {
	text := fmt.Sprintf("%d in flight", q.Depth.InFlight.N)
	if scheduled := q.Depth.Scheduled; scheduled.Err == nil && scheduled.N > 0 {
		text += fmt.Sprintf(" (%d held for an ETA)", scheduled.N)
	}
	return text
}

// mostNamed bounds the subjects that a reason names.
const mostNamed = 3

// why is the cause and reason of blockers, of which there is one at least: what is not
// known goes before what is. It names who, and tells of nothing that changes by the
// second.
func why(blockers []Blocker) (Cause, string) {
	for _, kind := range []struct {
		cause  Cause
		phrase string
	}{{Unknown, "not everything is known of"}, {Work, "there is work in"}, {Busy, "not every worker is idle:"}} {
		var subjects []string
		for _, b := range blockers {
			if b.Cause == kind.cause && !slices.Contains(subjects, b.Subject) {
				subjects = append(subjects, b.Subject)
			}
		}
		if len(subjects) > 0 {
			return kind.cause, kind.phrase + " " + list(subjects)
		}
	}
	return Unknown, "the reason is not known"
}

func list(subjects []string) string {
	if more := len(subjects) - mostNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(subjects[:mostNamed], ", "), more)
	}
	return strings.Join(subjects, ", ")
}
