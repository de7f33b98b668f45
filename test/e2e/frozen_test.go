package e2e_test

import (
	"slices"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// TestFrozenWorkerIsBusyUntilItsPodIsGone freezes one idle worker of two: nobody knows
// any more what it does.
func TestFrozenWorkerIsBusyUntilItsPodIsGone(t *testing.T) {
	p := startFleet(t, playground.RabbitMQ, playground.Fleet{MinReplicas: 2})
	awaitMetric(t, p, "celery_busy_workers", 0)
	awaitMetric(t, p, "celery_worker_slots", 2)
	frozen, pid := aWorker(t, p)
	signal(t, pid, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it may be gone
	awaitMetric(t, p, "celery_busy_workers", 1)

	clients, err := kubernetes.NewForConfig(p.Cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))} // it cannot end by itself
	if err := clients.CoreV1().Pods(playground.Namespace).Delete(t.Context(), frozen, now); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the pod to be replaced", func(s playground.Status) bool {
		return s.Ready == 2 && !slices.Contains(pods(t, p), frozen)
	})
	awaitMetric(t, p, "celery_busy_workers", 0)
}

// TestRestartedContainerIsAnotherWorker kills a worker's process: the kubelet starts
// another one in the same pod.
func TestRestartedContainerIsAnotherWorker(t *testing.T) {
	p := startFleet(t, playground.Redis, playground.Fleet{AcksEarly: true})
	awaitMetric(t, p, "celery_busy_workers", 0)
	if err := p.Publish(t.Context(), 1, longTask); err != nil {
		t.Fatal(err)
	}
	awaitMetric(t, p, "celery_worker_active_tasks", 1)
	pod, pid := aWorker(t, p)
	signal(t, pid, syscall.SIGKILL)
	awaitMetric(t, p, "celery_worker_active_tasks", 0)
	awaitMetric(t, p, "celery_busy_workers", 0)
	if now := pods(t, p); len(now) != 1 || now[0] != pod {
		t.Errorf("the pods are %v, want %s as before", now, pod)
	}
}

// aWorker is a pod of a worker, and its process.
func aWorker(t *testing.T, p *playground.Playground) (pod string, pid int) {
	t.Helper()
	pod = pods(t, p)[0]
	for _, e := range p.Node.Events() {
		if e.Kind == procnode.Start && e.Pod == pod {
			return pod, e.PID
		}
	}
	t.Fatalf("pod %s was never started", pod)
	return "", 0
}
