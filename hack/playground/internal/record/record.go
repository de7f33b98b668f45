package record

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Execution is a task that was started, with the pod in which it was.
type Execution struct {
	ID, Pod string
	// Waited is the time from when it was sent to when it was started.
	Waited   time.Duration
	Finished bool
	// FinishedAt is when; zero until it has. The message of a late acknowledgement is
	// acknowledged after that.
	FinishedAt time.Time
}

// Executions reads the lines of a record, in the order of the starts.
func Executions(text string) (all []Execution, err error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 4 || !strings.HasSuffix(line, "\n") {
			continue // a line that is being written
		}
		if all, err = note(all, words); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// note takes in a line: what happened, to which task, where, and a number.
func note(all []Execution, words []string) ([]Execution, error) {
	id, pod := words[1], strings.TrimPrefix(words[2], "celery@")
	if words[0] == "started" {
		waited, err := time.ParseDuration(words[3] + "s")
		return append(all, Execution{ID: id, Pod: pod, Waited: waited}), err
	}
	at, err := unixTime(words[3])
	for i := range all {
		if e := &all[i]; e.ID == id && e.Pod == pod && !e.Finished {
			e.Finished, e.FinishedAt = true, at
		}
	}
	return all, err
}

// unixTime reads seconds since 1970, with a fraction, as Python writes them.
func unixTime(text string) (time.Time, error) {
	seconds, err := strconv.ParseFloat(text, 64)
	return time.UnixMicro(int64(seconds * 1e6)), err
}

// Sent is when a producer, which was connected by then, began to send the first
// message, and when the broker had the last.
type Sent struct{ First, Last time.Time }

// SentAt reads what the producer says.
func SentAt(text string) (Sent, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return Sent{}, fmt.Errorf("the producer says %q, want two times", text)
	}
	first, err := unixTime(words[0])
	last, err2 := unixTime(words[1])
	if err = errors.Join(err, err2); err != nil {
		return Sent{}, fmt.Errorf("the producer says %q: %w", text, err)
	}
	return Sent{First: first, Last: last}, nil
}
