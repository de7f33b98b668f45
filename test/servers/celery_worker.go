package servers

import (
	"cmp"
	"encoding/json"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// startTimeout bounds the start of a worker; 2 cores that are busy with other
// tests take several seconds.
const startTimeout = 60 * time.Second

// WorkerOptions say what a worker consumes and how. The zero value is a worker
// as Celery starts it, with two processes.
type WorkerOptions struct {
	// Name is the part of the node name behind "celery@", for a pod its name.
	// Empty: "worker". Two workers of one broker must differ in it.
	Name string
	// Queues are consumed; none: those that the application declares, else
	// Celery's default queue.
	Queues []string
	// Concurrency is how many tasks execute at once; 0: two.
	Concurrency int
	// Pool is prefork, threads, gevent or solo; empty: prefork. Tasks of the gevent
	// pool share one thread: it executes others while one sleeps or waits at a gate.
	Pool string
	// LateAck acknowledges a task when it has finished instead of when it
	// starts.
	LateAck bool
	// Prefetch is how many messages are reserved for each of Concurrency; 0:
	// Celery's default, four.
	Prefetch int
	// Args are further arguments of "celery worker", for example
	// --without-heartbeat.
	Args []string
	// Env holds further variables in the form NAME=value.
	Env []string
}

// Worker is a running Celery worker. Its methods are safe for concurrent use.
type Worker struct {
	process *child.Process
}

// StartWorker starts a worker and returns when it consumes. It is killed when
// the test ends; its log is part of the test's if the test has failed.
func (c *Celery) StartWorker(t testing.TB, options WorkerOptions) *Worker {
	t.Helper()
	w := c.LaunchWorker(t, options)
	deadline := time.After(startTimeout)
	for !slices.Contains(c.Record(t).ready, options.node()) {
		select {
		case <-w.Done():
			t.Fatalf("the Celery worker %s ended instead of starting:\n%s", options.node(), w.process.Log())
		case <-deadline:
			t.Fatalf("the Celery worker %s is not ready after %s:\n%s", options.node(), startTimeout, w.process.Log())
		case <-time.After(child.PollInterval):
		}
	}
	return w
}

// LaunchWorker is StartWorker, but returns before the worker consumes.
func (c *Celery) LaunchWorker(t testing.TB, options WorkerOptions) *Worker {
	t.Helper()
	cmd := exec.Command(c.python, options.arguments()...)
	cmd.Dir = c.folder
	cmd.Env = append(slices.Concat(c.env, options.Env), options.conf())
	return &Worker{process: child.Start(t, "Celery worker "+options.node(), cmd)}
}

func (o WorkerOptions) node() string {
	if o.Name == "" {
		return "celery@worker"
	}
	return "celery@" + o.Name
}

func (o WorkerOptions) arguments() []string {
	args := []string{
		"-m", "celery", "--app", "celeryapp", "worker", "--loglevel", "INFO",
		"--hostname", o.node(), "--concurrency", strconv.Itoa(cmp.Or(o.Concurrency, 2)),
		"--pool", cmp.Or(o.Pool, "prefork"),
	}
	if len(o.Queues) > 0 {
		args = append(args, "--queues", strings.Join(o.Queues, ","))
	}
	return append(args, o.Args...)
}

// conf is what this worker adds to the settings of its application, as a
// variable of celeryapp.py.
func (o WorkerOptions) conf() string {
	conf := map[string]any{"task_acks_late": o.LateAck}
	if o.Prefetch > 0 {
		conf["worker_prefetch_multiplier"] = o.Prefetch
	}
	text, _ := json.Marshal(conf) // of a bool and an int: cannot fail
	return "CELERYAPP_WORKER=" + string(text)
}

// PID is the process id of the worker's main process.
func (w *Worker) PID() int { return w.process.PID() }

// Done is closed when the worker's main process has ended.
func (w *Worker) Done() <-chan struct{} { return w.process.Done() }

// Signal sends a signal to the main process alone, as a kubelet does: SIGTERM
// begins a warm shutdown, at whose end Done is closed.
func (w *Worker) Signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	w.process.Signal(t, signal)
}

// Kill ends the worker by SIGKILL, as the end of a grace period does, and returns
// when its main process is gone. The pool processes die with it.
func (w *Worker) Kill() { w.process.Kill() }
