//go:build linux

package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

func TestCluster(t *testing.T) {
	c := start(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the chart installs where Pod Security is restricted", c.installs},
		{"the broker of a Secret is ready", c.readsBroker},
		{"from zero to as many as there is work for, and back", c.scales},
		{"uninstall leaves nothing", c.uninstalls},
		{"the node is empty", c.isEmpty},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func (c *cluster) installs(t *testing.T) {
	c.kubectl(t, "apply", "-f", filepath.Join(repository, "deploy/helm/namespace.yaml"))
	if got := c.kubectl(t, "get", "namespace", system, `--output=jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); got != "restricted" {
		t.Fatalf("namespace %s enforces %q", system, got)
	}
	c.helm(t, "install", "celery-hpa", "deploy/helm/celery-hpa", "--wait", "--timeout=3m", "--set=crds.keep=false",
		"--set=image.repository=localhost/celery-hpa,image.tag=test,image.pullPolicy=Never")
	if got := c.kubectl(t, "get", "deployment", "celery-hpa", "--namespace="+system, "--output=jsonpath={.status.readyReplicas}"); got != "2" {
		t.Errorf("%s replicas are ready, want 2", got)
	}
	c.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=3m")
}

func (c *cluster) readsBroker(t *testing.T) {
	c.kubectl(t, "create", "namespace", space)
	c.kubectl(t, "label", "namespace", space, "pod-security.kubernetes.io/enforce=restricted")
	c.kubectl(t, "create", "configmap", "tasks", "--namespace="+space, "--from-file=testdata/tasks.py")
	c.kubectl(t, "apply", "-f", "testdata/workers.yaml")
	c.kubectl(t, "rollout", "status", "deployment/redis", "--namespace="+space, "--timeout=3m")
	c.expectReady(t)
}

// expectReady waits until the broker is read, and the metrics are served.
func (c *cluster) expectReady(t *testing.T) {
	t.Helper()
	c.kubectl(t, "wait", "--for=condition=Ready", "celerybroker/redis", "--namespace="+space, "--timeout=3m")
	shown := strings.Fields(c.kubectl(t, "get", "celerybrokers", "redis", "--namespace="+space, "--no-headers"))
	if len(shown) < 2 || !slices.Equal(shown[:2], []string{"redis", "True"}) {
		t.Errorf("kubectl shows %q, want a broker that is ready", shown)
	}
	if got, err := c.tasks(t); err != nil || !got.Value.IsZero() {
		t.Errorf("%s tasks in the queue, want 0: %v", &got.Value, err)
	}
}

// tasks is the metric that the HPA scales on, as kubectl gets it.
func (c *cluster) tasks(t *testing.T) (externalmetrics.ExternalMetricValue, error) {
	t.Helper()
	var list externalmetrics.ExternalMetricValueList
	answer, err := c.Kubectl(t.Context(), "get", "--raw", "/apis/external.metrics.k8s.io/v1beta1/namespaces/"+space+"/celery_queue_tasks?labelSelector=queue%3Dcelery")
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

// scales sends short tasks and such that are held, so that the HPA scales down while some
// execute. While they do, what can fail in a cluster fails.
func (c *cluster) scales(t *testing.T) {
	sent := append(c.send(t, 24, "work", "3"), c.send(t, 2, "hold")...)
	c.awaitReplicas(t, "3")
	waitFor(t, func() error { return c.readyWorkers(t, "3") })
	c.awaitFewer(t)
	busy := c.holders(t)
	for _, fault := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the replica that leads is deleted", c.losesLeader},
		{"containerd is restarted", c.restartsContainerd},
	} {
		began := time.Now()
		if !t.Run(fault.name, fault.run) {
			return
		}
		c.awaitHeld(t, began)
		c.expectUntouched(t, busy)
	}
	c.redis(t, "set", "released", "1")
	c.awaitReplicas(t, "0")
	c.awaitNoWorkers(t)
	c.expectOnce(t, sent)
	c.expectReady(t)
}

func (c *cluster) losesLeader(t *testing.T) {
	leader := c.leader(t)
	c.kubectl(t, "delete", "pod", leader, "--namespace="+system)
	waitFor(t, func() error {
		if now := c.leader(t); now == leader || now == "" {
			return fmt.Errorf("%q leads", now)
		}
		return nil
	})
	c.kubectl(t, "rollout", "status", "deployment/celery-hpa", "--namespace="+system, "--timeout=3m")
}

func (c *cluster) restartsContainerd(t *testing.T) {
	check(t, c.Restart("containerd"))
	waitFor(t, func() error {
		_, err := c.Kubectl(t.Context(), c.inSender("true")...)
		return err
	})
}

// awaitHeld waits until the two tasks that are held are seen again, and have been for
// longer than it takes to go to zero, after something failed at that time.
func (c *cluster) awaitHeld(t *testing.T, failed time.Time) {
	t.Helper()
	seen := time.Time{}
	waitFor(t, func() error {
		got, err := c.tasks(t)
		if err != nil {
			return err
		}
		if got.Value.Value() != 2 {
			seen = time.Time{}
			return fmt.Errorf("%s tasks are executed, want 2", &got.Value)
		}
		if seen.IsZero() && got.Timestamp.After(failed) {
			seen = got.Timestamp.Time
		}
		if seen.IsZero() || got.Timestamp.Sub(seen) < 2*idleWindow {
			return fmt.Errorf("the tasks were seen last at %s", got.Timestamp)
		}
		return nil
	})
}

// awaitFewer waits until the HPA has scaled down, which it may not while short tasks wait,
// and the workers that went are gone.
func (c *cluster) awaitFewer(t *testing.T) {
	t.Helper()
	waitFor(t, func() error {
		if short := strings.Count(c.record(t), "finished"); short < 24 {
			return fmt.Errorf("%d of 24 short tasks are finished", short)
		}
		names := strings.Fields(c.workers(t))
		if len(names) == 0 || len(names) > len(c.holders(t)) {
			return fmt.Errorf("the workers are %s, busy are %s", names, c.holders(t))
		}
		return nil
	})
}

// holders are the workers that execute a task that is held, sorted.
func (c *cluster) holders(t *testing.T) []string {
	t.Helper()
	executing := map[string]string{}
	for line := range strings.Lines(c.record(t)) {
		words := strings.Fields(line)
		if words[0] == "started" {
			executing[words[1]] = strings.TrimPrefix(words[2], "celery@")
			continue
		}
		delete(executing, words[1])
	}
	return slices.Compact(slices.Sorted(maps.Values(executing)))
}

// workers are the names of the workers that there are.
func (c *cluster) workers(t *testing.T) string {
	t.Helper()
	return c.kubectl(t, "get", "pods", "--namespace="+space, "--selector=app=worker", "--output=jsonpath={.items[*].metadata.name}")
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
	waitFor(t, func() error {
		if names := c.workers(t); names != "" {
			return fmt.Errorf("there still are %s", names)
		}
		return nil
	})
}

// send sends tasks (see tasks.py) and returns their ids.
func (c *cluster) send(t *testing.T, count int, order ...string) []string {
	t.Helper()
	command := append([]string{"python3", "-m", "tasks", strconv.Itoa(count)}, order...)
	return strings.Fields(c.kubectl(t, c.inSender(command...)...))
}

// redis asks the database of the records.
func (c *cluster) redis(t *testing.T, command ...string) string {
	t.Helper()
	return c.kubectl(t, c.inSender(append([]string{"redis-cli", "-h", redisAddress, "-n", "1"}, command...)...)...)
}

// record is what tasks have recorded.
func (c *cluster) record(t *testing.T) string {
	t.Helper()
	return c.redis(t, "lrange", "record", "0", "-1")
}

// inSender are the arguments with which kubectl runs a command beside Redis.
func (c *cluster) inSender(command ...string) []string {
	return append([]string{"exec", "deployment/redis", "--namespace=" + space, "--container=sender", "--"}, command...)
}

func (c *cluster) awaitReplicas(t *testing.T, want string) {
	t.Helper()
	waitFor(t, func() error {
		if got := c.kubectl(t, "get", "deployment", "worker", "--namespace="+space, "--output=jsonpath={.spec.replicas}"); got != want {
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

// leader is the pod that leads: what is before the underline of its identity.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	holder := c.kubectl(t, "get", "lease", "celery-hpa", "--namespace="+system, "--output=jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	return pod
}

// expectOnce expects that each task that was sent was started once and finished once, by
// the same worker, and no other.
func (c *cluster) expectOnce(t *testing.T, sent []string) {
	t.Helper()
	var want []string
	for _, id := range sent {
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

func (c *cluster) uninstalls(t *testing.T) {
	c.kubectl(t, "delete", "namespace", space, "--timeout=3m")
	c.helm(t, "uninstall", "celery-hpa", "--wait")
	c.kubectl(t, "delete", "namespace", system, "--timeout=3m")
	const kinds = "customresourcedefinitions,apiservices,validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles,clusterrolebindings,roles,rolebindings,leases,secrets"
	left := c.kubectl(t, "get", kinds, "--all-namespaces", "--output=name")
	for name := range strings.Lines(left) {
		if strings.Contains(name, "celery") {
			t.Errorf("left: %s", name)
		}
	}
}

// isEmpty waits until nothing of a pod is left on the node: no process of a container, no
// volume, no namespace.
func (c *cluster) isEmpty(t *testing.T) {
	waitFor(t, func() error { return errors.Join(c.hasNoMounts(), hasNoContainers()) })
}

func (c *cluster) hasNoMounts() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		target := strings.Fields(line)[1]
		for _, place := range []string{c.Dir() + "/kubelet/", "/run/containerd/", "/run/netns/"} {
			if strings.HasPrefix(target, place) {
				return fmt.Errorf("%s is mounted", target)
			}
		}
	}
	return nil
}

// hasNoContainers looks for the parents of containers.
func hasNoContainers() error {
	programs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, program := range programs {
		name, err := os.ReadFile(program)
		if err == nil && strings.HasPrefix(string(name), "containerd-shim") { // else it has just ended
			return fmt.Errorf("%s is %s", program, name)
		}
	}
	return nil
}
