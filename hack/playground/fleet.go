package playground

import (
	"context"
	"fmt"
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
	// MinReplicas bounds the fleet from below, and is how many workers there are at
	// first; 0: 1.
	MinReplicas int
	// HPASleeps lets the HPA itself go to zero: its minReplicas is 0, which Kubernetes
	// allows from 1.37 (or with the feature gate HPAScaleToZero).
	HPASleeps bool
	// ScaleToZero has the HPA ask celery-hpa to go to zero and back, and IdleWindow
	// say after how long without work; 0: celery-hpa's default.
	ScaleToZero bool
	IdleWindow  time.Duration
	// Concurrency is how many tasks a worker executes at once, and the HPA's target;
	// 0: Concurrency.
	Concurrency int
	// Pool is that of Celery; empty: prefork.
	Pool string
	// AcksEarly has a message acknowledged when its task begins, Celery's default,
	// instead of when it has ended.
	AcksEarly bool
	// Prefetch is how many messages for each of its slots a worker takes at once,
	// Celery's worker_prefetch_multiplier; 0: 1. Celery's default is 4.
	Prefetch int
	// VisibilityTimeout is after how long Redis gives a message to somebody else that
	// is not acknowledged; 0: Celery's default, an hour.
	VisibilityTimeout time.Duration
	// GracePeriod is what remains to a pod between SIGTERM and SIGKILL; 0: as long as
	// the longest task may take, 5 min.
	GracePeriod time.Duration
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
	f.Prefetch = orDefault(f.Prefetch, 1)
	f.VisibilityTimeout = orDefault(f.VisibilityTimeout, time.Hour)
	f.GracePeriod = orDefault(f.GracePeriod, 5*time.Minute)
	return f
}

// HPAMinReplicas is the HPA's minReplicas.
func (f Fleet) HPAMinReplicas() int {
	if f.HPASleeps {
		return 0
	}
	return f.MinReplicas
}

// GraceSeconds is GracePeriod as pods have it.
func (f Fleet) GraceSeconds() int { return int(f.GracePeriod.Seconds()) }

// VisibilitySeconds is VisibilityTimeout as Celery has it.
func (f Fleet) VisibilitySeconds() float64 { return f.VisibilityTimeout.Seconds() }

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

// FleetMetric reads a metric of the fleet through the API server, as the HPA does.
func (p *Playground) FleetMetric(ctx context.Context, name string) (int64, error) {
	return p.Metric(ctx, name, p.layout.Workers.Label()+"="+Workers)
}
