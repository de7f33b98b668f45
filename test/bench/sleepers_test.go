package bench_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
)

// sleepersNamespace is where all of them are.
const sleepersNamespace = "bench"

// reference is a Deployment that nobody scales but the benchmark.
const reference = "reference"

// sleepers are Deployments at zero, each with an HPA that asks for it, a real control
// plane without nodes, and the program as it is shipped.
type sleepers struct {
	clients kubernetes.Interface
	post    post
	pid     int
	targets int
	queues  [][]string // of each target
	resized chan resize
	toggled int32
}

// resize is what the watch has shown.
type resize struct {
	name     string
	replicas int32
	at       time.Time
}

// layDown starts everything, and returns when all targets have been asleep for a while.
func layDown(b *testing.B, p post, lookout string, targets, perEach int) *sleepers {
	b.Helper()
	cluster, err := localkube.Start(b.Context(), localkube.Options{Output: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			b.Error(err)
		}
	})
	clients, err := kubernetes.NewForConfig(cluster.RESTConfig())
	if err != nil {
		b.Fatal(err)
	}
	s := &sleepers{clients: clients, post: p, targets: targets, resized: make(chan resize, 1000)}
	var all []string
	for i := range targets {
		var own []string
		for j := range perEach {
			own = append(own, fmt.Sprintf("q%d-%d", i, j))
		}
		s.queues = append(s.queues, own)
		all = append(all, own...)
	}
	p.declare(b, all)
	s.create(b)
	s.watch(b)
	s.serve(b, cluster, lookout, all)
	return s
}

// create makes the namespace, the Deployments and their HPAs.
func (s *sleepers) create(b *testing.B) {
	b.Helper()
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: sleepersNamespace}}
	if _, err := s.clients.CoreV1().Namespaces().Create(b.Context(), space, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for i := range s.targets {
		s.deploy(b, targetName(i))
		s.autoscale(b, i)
	}
	s.deploy(b, reference)
}

func (s *sleepers) deploy(b *testing.B, name string) {
	b.Helper()
	labels := map[string]string{"app": name}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "worker", Image: "worker"}}},
			},
		},
	}
	if _, err := s.clients.AppsV1().Deployments(sleepersNamespace).Create(b.Context(), deployment, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

func (s *sleepers) autoscale(b *testing.B, i int) {
	b.Helper()
	text := fmt.Sprintf(`{
		"metadata": {"name": %q, "annotations": {"celery-hpa.io/scale-to-zero": "true"}},
		"spec": {
			"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": %q}, "maxReplicas": 10,
			"metrics": [{"type": "External", "external": {
				"metric": {"name": "celery_queue_tasks", "selector": {"matchExpressions": [{"key": "queue", "operator": "In", "values": ["%s"]}]}},
				"target": {"type": "AverageValue", "averageValue": "2"}
			}}]
		}
	}`, targetName(i), targetName(i), strings.Join(s.queues[i], `", "`))
	var hpa autoscalingv2.HorizontalPodAutoscaler
	if err := json.Unmarshal([]byte(text), &hpa); err != nil {
		b.Fatal(err)
	}
	if _, err := s.clients.AutoscalingV2().HorizontalPodAutoscalers(sleepersNamespace).Create(b.Context(), &hpa, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// watch passes on each size above zero that is new.
func (s *sleepers) watch(b *testing.B) {
	b.Helper()
	w, err := s.clients.AppsV1().Deployments(sleepersNamespace).Watch(b.Context(), metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.Stop)
	go func() {
		last := map[string]int32{}
		for e := range w.ResultChan() {
			d, ok := e.Object.(*appsv1.Deployment)
			if !ok || e.Type == watch.Deleted {
				continue
			}
			if n := *d.Spec.Replicas; n != last[d.Name] {
				last[d.Name] = n
				s.resized <- resize{d.Name, n, time.Now()}
			}
		}
	}()
}

// serve runs the program with the rights of the manifests.
func (s *sleepers) serve(b *testing.B, cluster *localkube.Cluster, lookout string, queues []string) {
	b.Helper()
	rights, err := playground.Rights()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := cluster.KubectlInput(b.Context(), strings.NewReader(string(rights)), "apply", "-f", "-"); err != nil {
		b.Fatal(err)
	}
	kubeconfig, err := cluster.KubeconfigFor("system:serviceaccount:celery-hpa:celery-hpa", "system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	binary, brokers := filepath.Join(dir, "celery-hpa"), filepath.Join(dir, "brokers.yaml")
	build(b, binary)
	var names strings.Builder
	for _, q := range queues {
		fmt.Fprintf(&names, "  - {name: %s}\n", q)
	}
	document := fmt.Sprintf("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: bench, namespace: %s}\nspec:\n  url: {file: url}\n  lookout: %s\n  queues:\n%s",
		sleepersNamespace, lookout, names.String())
	for path, content := range map[string]string{brokers: document, filepath.Join(dir, "url"): s.post.url()} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	cmd := exec.Command(binary, "serve", "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", port, "--brokers-file", brokers)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	s.pid = cmd.Process.Pid
}

// wake sends a message to a target's first queue and returns how long it took until the
// watch showed that it woke.
func (s *sleepers) wake(b *testing.B, i int) time.Duration {
	b.Helper()
	return s.await(b, targetName(i), s.post.send(b, s.queues[i][0]))
}

// patchReference changes the reference's size and returns how long it took until the
// watch showed it.
func (s *sleepers) patchReference(b *testing.B) time.Duration {
	b.Helper()
	s.toggled = 1 - s.toggled
	at := time.Now()
	s.scale(b, reference, s.toggled)
	return s.await(b, reference, at)
}

func (s *sleepers) scale(b *testing.B, name string, replicas int32) {
	b.Helper()
	patch := fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, replicas)
	_, err := s.clients.AppsV1().Deployments(sleepersNamespace).Patch(b.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	if err != nil {
		b.Fatal(err)
	}
}

// await waits for the first change of a size after that time.
func (s *sleepers) await(b *testing.B, name string, since time.Time) time.Duration {
	b.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for {
		select {
		case r := <-s.resized:
			if r.name == name && r.at.After(since) {
				return r.at.Sub(since)
			}
		case <-patience.C:
			b.Fatalf("the size of %s has not changed within 30 s", name)
		}
	}
}
