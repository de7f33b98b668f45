package playground

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
)

const (
	startTimeout = 90 * time.Second // of what takes seconds, where others use the machine too
	pollInterval = 100 * time.Millisecond
)

// Status is a playground at one moment.
type Status struct {
	// Backlog, InFlight and Tasks are what the metrics API answers.
	Backlog, InFlight, Tasks int64
	// Wanted is the fleet's spec.replicas, Ready how many pods are ready.
	Wanted, Ready int32
	// Started and Finished are what the tasks themselves recorded. A task that
	// ran twice counts twice.
	Started, Finished int
	// Killed counts worker processes that ended by SIGKILL or with an error,
	// with a task in their hands or not. One that was told to end before it had begun
	// to listen to that (SIGTERM) has had none.
	Killed int
}

// Status reads the metrics through the API server, the Deployment, and the
// records of tasks and processes. They are read one after the other.
func (p *Playground) Status(ctx context.Context) (Status, error) {
	var s Status
	for metric, value := range map[string]*int64{
		"celery_queue_backlog": &s.Backlog, "celery_queue_in_flight": &s.InFlight, "celery_queue_tasks": &s.Tasks,
	} {
		var err error
		if *value, err = p.Metric(ctx, metric, "queue="+Queue); err != nil {
			return Status{}, err
		}
	}
	var err error
	if s.Wanted, s.Ready, err = p.replicas(ctx); err != nil {
		return Status{}, err
	}
	record, err := os.ReadFile(p.layout.Record)
	if err != nil {
		return Status{}, fmt.Errorf("read the record of the tasks: %w", err)
	}
	s.Started, s.Finished = strings.Count(string(record), "started "), strings.Count(string(record), "finished ")
	s.Killed = killed(p.Node.Events())
	return s, nil
}

// Metric reads one metric through the API server, as the HPA does.
func (p *Playground) Metric(ctx context.Context, name, selector string) (int64, error) {
	text, err := p.clients.Discovery().RESTClient().Get().
		AbsPath("/apis/external.metrics.k8s.io/v1beta1/namespaces", Namespace, name).
		Param("labelSelector", selector).DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the metric %s: %w", name, err)
	}
	var list v1beta1.ExternalMetricValueList
	if err := json.Unmarshal(text, &list); err != nil {
		return 0, fmt.Errorf("read the metric %s: %w", name, err)
	}
	if len(list.Items) != 1 {
		return 0, fmt.Errorf("read the metric %s: %d items, want one", name, len(list.Items))
	}
	return list.Items[0].Value.Value(), nil
}

// await blocks until the first worker is ready and the metric can be read.
func (p *Playground) await(ctx context.Context, _ Options) error {
	step := p.progress.Start("waiting for the first worker and its metric")
	workers := p.layout.Workers
	err := p.Await(ctx, startTimeout, func(s Status) bool {
		return int(s.Ready) == workers.MinReplicas || workers.HPASleeps && s.Wanted == 0
	})
	step.Done(err)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.podLogs())
	}
	return nil
}

// podLogs is what each pod printed: the playground's folder, where all of it is,
// does not outlive it.
func (p *Playground) podLogs() string {
	var logs strings.Builder
	seen := map[string]bool{}
	for _, e := range p.Node.Events() {
		if seen[e.Pod] {
			continue
		}
		seen[e.Pod] = true
		text, _ := os.ReadFile(p.Node.PodLog(e.Namespace, e.Pod)) // a missing log is an empty one
		fmt.Fprintf(&logs, "--- %s/%s\n%s\n", e.Namespace, e.Pod, excerpt(text))
	}
	return logs.String()
}

// ProgramLog is all that celery-hpa has logged, each of its processes in turn.
func (p *Playground) ProgramLog() string {
	var logs strings.Builder
	seen := map[string]bool{}
	for _, e := range p.Node.Events() {
		if e.Namespace != SystemNamespace || seen[e.Pod] {
			continue
		}
		seen[e.Pod] = true
		text, _ := os.ReadFile(p.Node.PodLog(e.Namespace, e.Pod)) // a missing log is an empty one
		fmt.Fprintf(&logs, "--- %s\n%s\n", e.Pod, text)
	}
	return logs.String()
}

// excerpt is the beginning and the end of a long text. Python gives its reason
// last, Erlang first.
func excerpt(text []byte) []byte {
	const most = 2000
	if len(text) <= 2*most {
		return text
	}
	return slices.Concat(text[:most], []byte("\n…\n"), text[len(text)-most:])
}

// Await blocks until the status is as wanted. The error after the time-out says
// what it was at last, or why it could not be read.
func (p *Playground) Await(ctx context.Context, timeout time.Duration, wanted func(Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	for {
		status, err := p.Status(ctx)
		switch {
		case err == nil && wanted(status):
			return nil
		case err == nil:
			last = fmt.Errorf("the last status was %+v", status)
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s in vain: %w (%w)", timeout, last, ctx.Err())
		case <-p.Cluster.Done():
			return fmt.Errorf("the control plane has ended: %w", p.Cluster.Err())
		case <-time.After(pollInterval):
		}
	}
}

// unheeded is the exit code of a process that SIGTERM has ended, since it did not
// handle it: Celery does before it connects to a broker.
const unheeded = 128 + int(syscall.SIGTERM)

// killed counts the worker processes that did not end by themselves with 0.
func killed(events []procnode.Event) int {
	n := 0
	for _, e := range events {
		ended := e.Kind == procnode.Exit && e.ExitCode != 0 && e.ExitCode != unheeded
		if ended && strings.HasPrefix(e.Pod, Workers+"-") {
			n++
		}
	}
	return n
}
