package playground

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/celery-hpa/celery-hpa/hack/playground/internal/record"
)

// Execution is a task that was started, with the pod in which it was.
type Execution = record.Execution

// Executions returns what the tasks themselves recorded, in the order of their
// starts. A task that ran twice is there twice.
func (p *Playground) Executions() ([]Execution, error) {
	text, err := os.ReadFile(p.layout.Record)
	if err != nil {
		return nil, fmt.Errorf("read the record of the tasks: %w", err)
	}
	all, err := record.Executions(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the record of the tasks: %w", err)
	}
	return all, nil
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
