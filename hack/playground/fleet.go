package playground

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// Fleet says how the workers are run. The zero value is that of the demo.
type Fleet struct {
	// StatefulSet runs them as one, not as a Deployment.
	StatefulSet bool
	// MinReplicas bounds the fleet from below; 0: 1.
	MinReplicas int
	// Concurrency is how many tasks a worker executes at once, and the HPA's target;
	// 0: Concurrency.
	Concurrency int
	// Pool is that of Celery; empty: prefork.
	Pool string
	// AcksEarly has a message acknowledged when its task begins, Celery's default,
	// instead of when it has ended.
	AcksEarly bool
	// QueueMetricAlone leaves the HPA without celery_busy_workers.
	QueueMetricAlone bool
	// Work has the HPA scale on celery_queue_work_seconds instead of
	// celery_queue_tasks, with this much for each worker.
	Work time.Duration
}

func (f Fleet) withDefaults() Fleet {
	f.MinReplicas = orDefault(f.MinReplicas, 1)
	f.Concurrency = orDefault(f.Concurrency, Concurrency)
	f.Pool = orDefault(f.Pool, "prefork")
	return f
}

// WorkSeconds is Work as the HPA writes it.
func (f Fleet) WorkSeconds() int { return int(f.Work.Seconds()) }

// Kind is what the fleet is.
func (f Fleet) Kind() string {
	if f.StatefulSet {
		return "StatefulSet"
	}
	return "Deployment"
}

// Label is the label of the fleet's metrics.
func (f Fleet) Label() string { return strings.ToLower(f.Kind()) }

// AcksLate is Celery's setting.
func (f Fleet) AcksLate() bool { return !f.AcksEarly }

// replicas is what the fleet is to have, and how many of its pods are ready.
func (p *Playground) replicas(ctx context.Context) (wanted, ready int32, err error) {
	if p.layout.Workers.StatefulSet {
		set, err := p.clients.AppsV1().StatefulSets(Namespace).Get(ctx, Workers, metav1.GetOptions{})
		if err != nil {
			return 0, 0, fmt.Errorf("read the StatefulSet of workers: %w", err)
		}
		return *set.Spec.Replicas, set.Status.ReadyReplicas, nil
	}
	deployment, err := p.clients.AppsV1().Deployments(Namespace).Get(ctx, Workers, metav1.GetOptions{})
	if err != nil {
		return 0, 0, fmt.Errorf("read the Deployment of workers: %w", err)
	}
	return *deployment.Spec.Replicas, deployment.Status.ReadyReplicas, nil
}

// SetMinReplicas changes the HPA.
func (p *Playground) SetMinReplicas(ctx context.Context, n int) error {
	patch := fmt.Appendf(nil, `{"spec": {"minReplicas": %d}}`, n)
	_, err := p.clients.AutoscalingV2().HorizontalPodAutoscalers(Namespace).Patch(ctx, Workers, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("set the HPA's minReplicas to %d: %w", n, err)
	}
	return nil
}

// WorkerPods returns the names of the workers' pods that are not being deleted.
func (p *Playground) WorkerPods(ctx context.Context) ([]string, error) {
	return p.workerPods(ctx, func(corev1.Pod) bool { return true })
}

// HeldPods returns those of them that hold their node against node autoscalers.
func (p *Playground) HeldPods(ctx context.Context) ([]string, error) {
	return p.workerPods(ctx, func(pod corev1.Pod) bool {
		return pod.Annotations[v1alpha1.AnnotationSafeToEvict] == "false" && pod.Annotations[v1alpha1.AnnotationDoNotDisrupt] == "true"
	})
}

func (p *Playground) workerPods(ctx context.Context, which func(corev1.Pod) bool) ([]string, error) {
	pods, err := p.clients.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=worker"})
	if err != nil {
		return nil, fmt.Errorf("list the workers' pods: %w", err)
	}
	var names []string
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil && which(pod) {
			names = append(names, pod.Name)
		}
	}
	return names, nil
}

// Execution is a task that was started, with the pod in which it was.
type Execution struct {
	ID, Pod string
	// Waited is the time from when it was sent to when it was started.
	Waited   time.Duration
	Finished bool
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
		if len(words) < 3 {
			continue // a line that is being written
		}
		pod := strings.TrimPrefix(words[2], "celery@")
		if words[0] == "started" && len(words) == 4 {
			waited, err := time.ParseDuration(words[3] + "s")
			if err != nil {
				return nil, fmt.Errorf("read the record of the tasks: %w", err)
			}
			all = append(all, Execution{ID: words[1], Pod: pod, Waited: waited})
			continue
		}
		for i := range all {
			if all[i].ID == words[1] && all[i].Pod == pod {
				all[i].Finished = true
			}
		}
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

// FleetMetric reads a metric of the fleet through the API server, as the HPA does.
func (p *Playground) FleetMetric(ctx context.Context, name string) (int64, error) {
	return p.Metric(ctx, name, p.layout.Workers.Label()+"="+Workers)
}
