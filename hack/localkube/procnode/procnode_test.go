package procnode_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state. Only a failing test waits that long.
const patience = 30 * time.Second

// fixture is one control plane and one node for all the rules below: each has a
// namespace of its own.
type fixture struct {
	cluster *localkube.Cluster
	clients kubernetes.Interface
	node    *procnode.Node
	stop    context.CancelFunc
	stopped chan error
}

func TestNode(t *testing.T) {
	f := newFixture(t)
	for name, rule := range map[string]func(*testing.T, *fixture, string){
		"scaling down ends processes by SIGTERM alone":        scalingDown,
		"a stubborn process is killed after its grace period": stubborn,
		"a second deletion shortens the grace period":         impatient,
		"a process that fails is restarted and counted":       restarting,
		"a process that must not be restarted fails its pod":  neverRestarted,
		"pods of a StatefulSet know their names":              statefulNames,
		"a pod that cannot be a process says why":             unsupported,
		"a command that does not exist says so":               commandNotFound,
		"a pod deleted by force does not leave its process":   forced,
		"a pod of another node is left alone":                 otherNode,
	} {
		t.Run(name, func(t *testing.T) { rule(t, f, f.namespace(t)) })
	}
	t.Run("when the node stops its processes end and its pods stay", func(t *testing.T) { nodeStops(t, f, f.namespace(t)) })
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	cluster, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	clients, err := kubernetes.NewForConfig(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	node, err := procnode.New(procnode.Options{Config: cluster.RESTConfig(), LogDir: t.TempDir(), Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	f := &fixture{cluster: cluster, clients: clients, node: node, stop: stop, stopped: make(chan error, 1)}
	go func() {
		defer close(f.stopped)
		f.stopped <- node.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		for err := range f.stopped {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

func (f *fixture) namespace(t *testing.T) string {
	t.Helper()
	space, err := f.clients.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "rule-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return space.Name
}

func scalingDown(t *testing.T, f *fixture, namespace string) {
	f.apply(t, deployment(namespace, 3, 30, `trap 'echo warm shutdown; exit 0' TERM; echo up; while :; do sleep 0.1; done`))
	f.awaitLogs(t, namespace, 3, "up")
	f.kubectl(t, "scale", "-n", namespace, "deployment/worker", "--replicas=1")
	eventually.Succeeds(t, patience, "two pods are gone", func() error { return countIs(1, len(f.pods(t, namespace))) })

	ended := 0
	for pod, kinds := range f.histories(namespace) {
		switch {
		case len(kinds) == 1:
		case cmp.Equal(kinds, []procnode.Kind{procnode.Start, procnode.SIGTERM, procnode.Exit}):
			ended++
			if !strings.Contains(f.log(t, namespace, pod), "warm shutdown") {
				t.Errorf("pod %s did not handle SIGTERM", pod)
			}
		default:
			t.Errorf("pod %s: %v", pod, kinds)
		}
	}
	if ended != 2 {
		t.Errorf("%d pods were ended in good order, want 2", ended)
	}
	for _, event := range f.events(namespace) {
		if event.Kind == procnode.Exit && event.ExitCode != 0 {
			t.Errorf("exit code %d, want the process's own 0", event.ExitCode)
		}
	}
}

func stubborn(t *testing.T, f *fixture, namespace string) {
	f.apply(t, pod(namespace, "Always", 1, `trap '' TERM; echo up; while :; do sleep 0.1; done`))
	f.awaitLogs(t, namespace, 1, "up")
	f.kubectl(t, "delete", "-n", namespace, "pod/worker")
	f.checkHistory(t, namespace, procnode.Start, procnode.SIGTERM, procnode.SIGKILL, procnode.Exit)
	events := f.events(namespace)
	if last := events[len(events)-1]; last.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", last.ExitCode)
	}
	if grace := events[2].Time.Sub(events[1].Time); grace < time.Second {
		t.Errorf("killed %s after SIGTERM, before its grace period of 1 s", grace)
	}
}

func impatient(t *testing.T, f *fixture, namespace string) {
	f.apply(t, pod(namespace, "Always", 3600, `trap '' TERM; echo up; while :; do sleep 0.1; done`))
	f.awaitLogs(t, namespace, 1, "up")
	f.kubectl(t, "delete", "-n", namespace, "pod/worker", "--wait=false")
	eventually.Succeeds(t, patience, "SIGTERM was sent", func() error { return countIs(2, len(f.events(namespace))) })
	f.kubectl(t, "delete", "-n", namespace, "pod/worker", "--grace-period=1")
	f.checkHistory(t, namespace, procnode.Start, procnode.SIGTERM, procnode.SIGKILL, procnode.Exit)
}

func restarting(t *testing.T, f *fixture, namespace string) {
	f.apply(t, pod(namespace, "Always", 5, `echo up; exit 3`))
	eventually.Succeeds(t, patience, "two restarts are reported", func() error {
		pod, err := f.pod(t, namespace, "worker")
		if err != nil {
			return err
		}
		if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].RestartCount < 2 {
			return fmt.Errorf("status %+v", pod.Status)
		}
		if last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 3 {
			return fmt.Errorf("last termination %+v, want exit code 3", last)
		}
		return nil
	})
	f.kubectl(t, "delete", "-n", namespace, "pod/worker")
}

func neverRestarted(t *testing.T, f *fixture, namespace string) {
	f.apply(t, pod(namespace, "Never", 5, `exit 4`))
	eventually.Succeeds(t, patience, "the pod has failed", func() error {
		pod, err := f.pod(t, namespace, "worker")
		if err == nil && pod.Status.Phase != corev1.PodFailed {
			err = fmt.Errorf("phase %s", pod.Status.Phase)
		}
		return err
	})
	f.checkHistory(t, namespace, procnode.Start, procnode.Exit)
	f.kubectl(t, "delete", "-n", namespace, "pod/worker")
}

func statefulNames(t *testing.T, f *fixture, namespace string) {
	f.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: worker, namespace: %s}
spec:
  serviceName: worker
  replicas: 2
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers:
      - name: worker
        image: none
        command: [sh, -c, 'echo "$HOSTNAME $1"; exec sleep 600', sh, 'celery@$(NODE_NAME)']
        env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
`, namespace))
	for _, name := range []string{"worker-0", "worker-1"} {
		eventually.Succeeds(t, patience, name+" says its name", func() error {
			if got, want := f.log(t, namespace, name), name+" celery@"+name+"\n"; got != want {
				return fmt.Errorf("got %q, want %q", got, want)
			}
			return nil
		})
	}
	f.kubectl(t, "scale", "-n", namespace, "statefulset/worker", "--replicas=0")
	eventually.Succeeds(t, patience, "both are gone", func() error { return countIs(0, len(f.pods(t, namespace))) })
}

func unsupported(t *testing.T, f *fixture, namespace string) {
	f.apply(t, strings.Replace(pod(namespace, "Always", 5, "true"), "image: none", "image: none\n    envFrom: [{configMapRef: {name: x}}]", 1))
	eventually.Succeeds(t, patience, "the pod says what it cannot have", func() error { return f.waits(t, namespace, "CreateContainerConfigError", "envFrom") })
	f.kubectl(t, "delete", "-n", namespace, "pod/worker")
	f.checkHistory(t, namespace)
}

func commandNotFound(t *testing.T, f *fixture, namespace string) {
	f.apply(t, strings.Replace(pod(namespace, "Always", 5, "true"), "[sh,", "[/no/such/celery,", 1))
	eventually.Succeeds(t, patience, "the pod says what is missing", func() error { return f.waits(t, namespace, "CrashLoopBackOff", "/no/such/celery") })
	f.kubectl(t, "delete", "-n", namespace, "pod/worker")
	f.checkHistory(t, namespace)
}

func forced(t *testing.T, f *fixture, namespace string) {
	f.apply(t, pod(namespace, "Always", 3600, `trap '' TERM; echo up; while :; do sleep 0.1; done`))
	f.awaitLogs(t, namespace, 1, "up")
	f.kubectl(t, "delete", "-n", namespace, "pod/worker", "--force", "--grace-period=0")
	eventually.Succeeds(t, patience, "the process has ended", func() error { return countIs(4, len(f.events(namespace))) })
	f.checkHistory(t, namespace, procnode.Start, procnode.SIGTERM, procnode.SIGKILL, procnode.Exit)
}

// otherNode waits until a pod behind it in the queue has run.
func otherNode(t *testing.T, f *fixture, namespace string) {
	f.apply(t, strings.Replace(pod(namespace, "Always", 5, "true"), "spec:", "spec:\n  nodeName: elsewhere", 1))
	f.apply(t, strings.Replace(pod(namespace, "Never", 5, "true"), "name: worker", "name: later", 1))
	eventually.Succeeds(t, patience, "the later pod has run", func() error { return countIs(2, len(f.events(namespace))) })
	for _, event := range f.events(namespace) {
		if event.Pod != "later" {
			t.Errorf("%s of pod %s, which is another node's", event.Kind, event.Pod)
		}
	}
	f.kubectl(t, "delete", "-n", namespace, "pod/worker", "--force", "--grace-period=0")
}

func nodeStops(t *testing.T, f *fixture, namespace string) {
	f.apply(t, deployment(namespace, 2, 3600, `trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done`))
	f.awaitLogs(t, namespace, 2, "up")
	f.stop()
	if err := <-f.stopped; err != nil {
		t.Errorf("Run returned %v", err)
	}
	for pod, kinds := range f.histories(namespace) {
		if diff := cmp.Diff([]procnode.Kind{procnode.Start, procnode.SIGTERM, procnode.Exit}, kinds); diff != "" {
			t.Errorf("pod %s (-want +got):\n%s", pod, diff)
		}
	}
	for _, event := range f.node.Events() {
		if syscall.Kill(event.PID, 0) == nil && event.Kind == procnode.Exit {
			t.Errorf("process %d of pod %s is still there", event.PID, event.Pod)
		}
	}
	if got := len(f.pods(t, namespace)); got != 2 {
		t.Errorf("%d pods are left in the API, want 2", got)
	}
}

func deployment(namespace string, replicas, grace int, script string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: %d
      containers:
      - name: worker
        image: none
        command: [sh, -c, %q]
`, namespace, replicas, grace, script)
}

func pod(namespace, restartPolicy string, grace int, script string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: worker, namespace: %s}
spec:
  restartPolicy: %s
  terminationGracePeriodSeconds: %d
  containers:
  - name: worker
    image: none
    command: [sh, -c, %q]
`, namespace, restartPolicy, grace, script)
}

func (f *fixture) apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) kubectl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := f.cluster.Kubectl(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) pod(t *testing.T, namespace, name string) (*corev1.Pod, error) {
	t.Helper()
	return f.clients.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

func (f *fixture) pods(t *testing.T, namespace string) []corev1.Pod {
	t.Helper()
	list, err := f.clients.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// waits returns nil if the pod waits for this reason with a message that holds
// the text.
func (f *fixture) waits(t *testing.T, namespace, reason, text string) error {
	t.Helper()
	pod, err := f.pod(t, namespace, "worker")
	if err != nil {
		return err
	}
	for _, status := range pod.Status.ContainerStatuses {
		waiting := status.State.Waiting
		if waiting != nil && waiting.Reason == reason && strings.Contains(waiting.Message, text) {
			return nil
		}
	}
	return fmt.Errorf("status %+v", pod.Status)
}

func (f *fixture) log(t *testing.T, namespace, pod string) string {
	t.Helper()
	content, err := os.ReadFile(f.node.PodLog(namespace, pod))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}

// awaitLogs waits until so many pods are Running and have written the text.
func (f *fixture) awaitLogs(t *testing.T, namespace string, count int, text string) {
	t.Helper()
	eventually.Succeeds(t, patience, fmt.Sprintf("%d pods have written %q", count, text), func() error {
		got := 0
		for _, pod := range f.pods(t, namespace) {
			if pod.Status.Phase == corev1.PodRunning && strings.Contains(f.log(t, namespace, pod.Name), text) {
				got++
			}
		}
		return countIs(count, got)
	})
}

func (f *fixture) events(namespace string) []procnode.Event {
	return slices.DeleteFunc(f.node.Events(), func(event procnode.Event) bool { return event.Namespace != namespace })
}

// histories returns what happened to each pod of the namespace, in order.
func (f *fixture) histories(namespace string) map[string][]procnode.Kind {
	kinds := map[string][]procnode.Kind{}
	for _, event := range f.events(namespace) {
		kinds[event.Pod] = append(kinds[event.Pod], event.Kind)
	}
	return kinds
}

// checkHistory compares what happened to the pod worker, which must not be in the
// API any more or have ended.
func (f *fixture) checkHistory(t *testing.T, namespace string, want ...procnode.Kind) {
	t.Helper()
	if diff := cmp.Diff(want, f.histories(namespace)["worker"]); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if pod, err := f.pod(t, namespace, "worker"); !apierrors.IsNotFound(err) && (err != nil || pod.Status.Phase != corev1.PodFailed) {
		t.Errorf("the pod is still there: %+v, %v", pod, err)
	}
}

func countIs(want, got int) error {
	if got != want {
		return fmt.Errorf("%d, want %d", got, want)
	}
	return nil
}
