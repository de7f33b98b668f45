//go:build linux

package cluster_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// tasksURI is where the metric is that the HPA scales on.
const tasksURI = "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + space + "/celery_queue_tasks?labelSelector=queue%3Dcelery"

// killed is the exit code of a container that was ended by SIGKILL.
const killed = 128 + 9

// tasks is the metric that the HPA scales on, as kubectl gets it.
func (c *cluster) tasks(t *testing.T) (externalmetrics.ExternalMetricValue, error) {
	t.Helper()
	var list externalmetrics.ExternalMetricValueList
	answer, err := c.Kubectl(t.Context(), "get", "--raw", tasksURI)
	if err == nil {
		err = json.Unmarshal(answer, &list)
	}
	if err == nil && len(list.Items) != 1 {
		err = fmt.Errorf("%d values", len(list.Items))
	}
	if err != nil {
		return externalmetrics.ExternalMetricValue{}, err
	}
	return list.Items[0], nil
}

func (c *cluster) hasTasks(t *testing.T, want int64) error {
	t.Helper()
	got, err := c.tasks(t)
	if err == nil && got.Value.Value() != want {
		err = fmt.Errorf("%s tasks in the queue, want %d", &got.Value, want)
	}
	return err
}

// begin forgets what was sent, recorded and seen.
func (c *cluster) begin(t *testing.T) {
	t.Helper()
	c.sent = nil
	c.ends.forget()
	c.records(t, "flushall")
}

// send sends tasks (see tasks.py).
func (c *cluster) send(t *testing.T, count int, order ...string) {
	t.Helper()
	command := append([]string{"python3", "-m", "tasks", strconv.Itoa(count)}, order...)
	c.sent = append(c.sent, strings.Fields(c.kubectl(t, c.inSender(command...)...))...)
}

// records asks the Redis of the records.
func (c *cluster) records(t *testing.T, command ...string) string {
	t.Helper()
	return c.kubectl(t, c.inSender(append([]string{"redis-cli"}, command...)...)...)
}

// record is what tasks have recorded.
func (c *cluster) record(t *testing.T) string {
	t.Helper()
	return c.records(t, "lrange", "record", "0", "-1")
}

// inSender are the arguments with which kubectl runs a command beside that Redis.
func (c *cluster) inSender(command ...string) []string {
	return append([]string{"exec", "deployment/records", "--namespace=" + space, "--container=sender", "--"}, command...)
}

// executing are the tasks that have started and not finished, as is recorded, each with its
// worker.
func (c *cluster) executing(t *testing.T) map[string]string {
	t.Helper()
	tasks := map[string]string{}
	for line := range strings.Lines(c.record(t)) {
		words := strings.Fields(line)
		if words[0] == "started" {
			tasks[words[1]] = strings.TrimPrefix(words[2], "celery@")
			continue
		}
		delete(tasks, words[1])
	}
	return tasks
}

func (c *cluster) executes(t *testing.T, want int) error {
	t.Helper()
	if tasks := c.executing(t); len(tasks) != want {
		return fmt.Errorf("%d tasks are executed, want %d: %v", len(tasks), want, tasks)
	}
	return nil
}

// holders are the workers that execute a task, sorted.
func (c *cluster) holders(t *testing.T) []string {
	t.Helper()
	return slices.Compact(slices.Sorted(maps.Values(c.executing(t))))
}

// workers are the names of the workers that there are.
func (c *cluster) workers(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "pods", "--namespace="+space, "--selector=app=worker", "--output=jsonpath={.items[*].metadata.name}")
}

// hasBusyWorkersOnly tells whether each worker that there is executes a task.
func (c *cluster) hasBusyWorkersOnly(t *testing.T) error {
	t.Helper()
	names, busy := strings.Fields(c.workers(t)), c.holders(t)
	slices.Sort(names)
	if len(busy) == 0 || !slices.Equal(names, busy) {
		return fmt.Errorf("the workers are %s, busy are %s", names, busy)
	}
	return nil
}

// expectUntouched expects that the busy workers are there, run, and were never restarted.
func (c *cluster) expectUntouched(t *testing.T, busy []string) {
	t.Helper()
	const fields = `{range .items[*]}{.metadata.name} {.status.phase} {.metadata.deletionTimestamp}{.status.containerStatuses[0].restartCount}{"\n"}{end}`
	pods := c.kubectl(t, "get", "pods", "--namespace="+space, "--selector=app=worker", "--output=jsonpath="+fields)
	for _, name := range busy {
		if !strings.Contains(pods+"\n", name+" Running 0\n") {
			t.Errorf("worker %s was executing a task, and the workers are now\n%s", name, pods)
		}
	}
}

func (c *cluster) awaitNoWorkers(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, patience, "there are no workers", func() error {
		if names := c.workers(t); names != "" {
			return fmt.Errorf("there still are %s", names)
		}
		return nil
	})
}

// replicas is the size that the fleet is to have.
func (c *cluster) replicas(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "deployment", "worker", "--namespace="+space, "--output=jsonpath={.spec.replicas}")
}

func (c *cluster) expectReplicas(t *testing.T, want string) {
	t.Helper()
	if got := c.replicas(t); got != want {
		t.Fatalf("%s replicas, want %s", got, want)
	}
}

func (c *cluster) awaitReplicas(t *testing.T, want string) {
	t.Helper()
	eventually.Succeeds(t, patience, "the replicas are "+want, func() error {
		if got := c.replicas(t); got != want {
			return fmt.Errorf("%s replicas, want %s", got, want)
		}
		return nil
	})
}

func (c *cluster) readyWorkers(t *testing.T, want string) error {
	t.Helper()
	got := c.kubectl(t, "get", "deployment", "worker", "--namespace="+space, "--output=jsonpath={.status.readyReplicas}")
	if got != want {
		return fmt.Errorf("%q workers are ready, want %s", got, want)
	}
	return nil
}

// expectOnce expects that each task that was sent was started once and finished once, by
// the same worker, and no other.
func (c *cluster) expectOnce(t *testing.T) {
	t.Helper()
	var want []string
	for _, id := range c.sent {
		want = append(want, "finished "+id, "started "+id)
	}
	var got []string
	for line := range strings.Lines(c.record(t)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		id, node, _ := strings.Cut(rest, " ")
		if !strings.HasPrefix(node, "celery@worker-") {
			t.Errorf("%q: a worker is not called as its pod", line)
		}
		got = append(got, verb+" "+id)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// expectWarm expects that no worker was ended by SIGKILL, when its grace period was over.
func (c *cluster) expectWarm(t *testing.T) {
	t.Helper()
	codes := c.ends.all()
	if len(codes) == 0 {
		t.Error("no end of a worker was seen")
	}
	for name, code := range codes {
		if code != 0 {
			t.Errorf("worker %s ended with exit code %d, want 0, by a warm shutdown", name, code)
		}
	}
}

// ends are the exit codes of workers' containers, by the names of their pods: what a
// kubelet says of a pod last, before it is gone. It is safe for concurrent use.
type ends struct {
	mu    sync.Mutex
	codes map[string]int32
}

// watchEnds watches the workers until the test ends.
func (c *cluster) watchEnds(t *testing.T) {
	t.Helper()
	c.ends.forget()
	clients, err := kubernetes.NewForConfig(c.RESTConfig())
	check(t, err)
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(space),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "app=worker" }))
	_, err = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(_, pod any) { c.ends.see(pod) },
		DeleteFunc: c.ends.see,
	})
	check(t, err)
	factory.Start(t.Context().Done())
	t.Cleanup(factory.Shutdown)
}

func (e *ends) see(object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok { // it was deleted while nobody watched
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, container := range pod.Status.ContainerStatuses {
		if ended := container.State.Terminated; ended != nil {
			e.codes[pod.Name] = ended.ExitCode
		}
	}
}

func (e *ends) of(pod string) (code int32, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	code, ok = e.codes[pod]
	return code, ok
}

func (e *ends) all() map[string]int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.codes)
}

func (e *ends) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.codes = map[string]int32{}
}
