package playground

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// Executions returns what the tasks themselves recorded, in the order of their
// starts. A task that ran twice is there twice.
func (p *Playground) Executions() ([]Execution, error) {
	record, err := os.ReadFile(p.layout.Record)
	if err != nil {
		return nil, fmt.Errorf("read the record of the tasks: %w", err)
	}
	var all []Execution
	for line := range strings.Lines(string(record)) {
		words := strings.Fields(line)
		if len(words) != 4 || !strings.HasSuffix(line, "\n") {
			continue // a line that is being written
		}
		if all, err = note(all, words); err != nil {
			return nil, fmt.Errorf("read the record of the tasks: %w", err)
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

// ReleaseTasks ends every task that executes, and each that will, until HoldTasks.
func (p *Playground) ReleaseTasks() error { return os.WriteFile(p.layout.released(), nil, 0o600) }

// HoldTasks lets tasks execute for as long as they are sent to.
func (p *Playground) HoldTasks() error {
	released, err := filepath.Glob(p.layout.released() + "*")
	for _, file := range released {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// released is a file whose presence ends tasks.
func (l layout) released() string { return l.Record + ".released" }

// ReleaseTasksAbove ends the tasks that execute in the pods of a StatefulSet with a
// higher ordinal, and those that will.
func (p *Playground) ReleaseTasksAbove(ordinal int) error {
	for n := ordinal + 1; n < p.layout.MaxReplicas; n++ {
		if err := os.WriteFile(fmt.Sprintf("%s.celery@%s-%d", p.layout.released(), Workers, n), nil, 0o600); err != nil {
			return fmt.Errorf("release the tasks of ordinal %d: %w", n, err)
		}
	}
	return nil
}
