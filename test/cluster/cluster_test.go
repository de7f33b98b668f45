//go:build linux

package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// step is a part of the test, which goes on only if it has passed.
type step struct {
	name string
	run  func(*testing.T)
}

func TestCluster(t *testing.T) {
	c := start(t)
	walk(t,
		step{"the chart installs where Pod Security is restricted", c.installs},
		step{"the broker of a Secret is ready", c.readsBroker},
		step{"from zero to as many as there is work for, and back", c.scales},
		step{"while tasks are executed", c.survives},
		step{"who deletes a busy pod has its task killed, and its fleet sleeps", c.losesWorker},
		step{"uninstall leaves nothing", c.uninstalls},
		step{"the node is empty", c.isEmpty},
	)
}

func walk(t *testing.T, steps ...step) {
	t.Helper()
	for _, one := range steps {
		if !t.Run(one.name, one.run) {
			return
		}
	}
}

// installs installs the chart as it was, for an upgrade later on.
func (c *cluster) installs(t *testing.T) {
	c.kubectl(t, "apply", "-f", filepath.Join(repository, "deploy/helm/namespace.yaml"))
	c.expectRestricted(t, system)
	c.helm(t, append(releaseFlags(), "install", "celery-hpa", previousChart(t))...)
	c.expectRelease(t, "previous")
	c.kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=3m")
}

func (c *cluster) expectRestricted(t *testing.T, namespace string) {
	t.Helper()
	if got := c.kubectl(t, "get", "namespace", namespace, `--output=jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); got != "restricted" {
		t.Fatalf("namespace %s enforces %q", namespace, got)
	}
}

func (c *cluster) readsBroker(t *testing.T) {
	check(t, os.MkdirAll(brokerFolder, 0o700))
	c.kubectl(t, "create", "namespace", space)
	c.kubectl(t, "label", "namespace", space, "pod-security.kubernetes.io/enforce=restricted")
	c.expectRestricted(t, space)
	c.kubectl(t, "create", "configmap", "tasks", "--namespace="+space, "--from-file=testdata/tasks.py")
	c.kubectl(t, "apply", "-f", "testdata/workers.yaml")
	for _, name := range []string{"statefulset/redis", "deployment/records"} {
		c.kubectl(t, "rollout", "status", name, "--namespace="+space, "--timeout=3m")
	}
	c.kubectl(t, "wait", "--for=condition=Ready", "celerybroker/redis", "--namespace="+space, "--timeout=3m")
	eventually.Succeeds(t, patience, "there are no tasks", func() error { return c.hasTasks(t, 0) })
}

// scales sends short tasks and such that are held for longer than their worker's grace
// period: the HPA scales down while those are executed, to the workers that do.
func (c *cluster) scales(t *testing.T) {
	c.begin(t)
	c.send(t, 24, "work", "3")
	c.send(t, 2, "hold")
	c.awaitReplicas(t, "3")
	eventually.Succeeds(t, patience, "three workers are ready", func() error { return c.readyWorkers(t, "3") })
	c.awaitFewer(t)
	left := time.Now()
	busy := c.holders(t)
	eventually.Succeeds(t, patience, "tasks are held for longer than the grace period", func() error {
		if held := time.Since(left); held < gracePeriod {
			return fmt.Errorf("tasks are held for %s, less than the grace period", held)
		}
		return nil
	})
	c.expectUntouched(t, busy)
	c.finish(t)
}

// finish lets all tasks end and expects that nothing was lost on the way back to zero.
func (c *cluster) finish(t *testing.T) {
	t.Helper()
	c.records(t, "set", "released", "1")
	c.awaitReplicas(t, "0")
	c.awaitNoWorkers(t)
	c.expectOnce(t)
	c.expectWarm(t)
	if err := c.hasTasks(t, 0); err != nil {
		t.Error(err)
	}
}

// awaitFewer waits until the HPA has scaled down, which it may not while short tasks wait,
// and the workers that went are gone.
func (c *cluster) awaitFewer(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, patience, "the busy workers alone are left", func() error {
		if short := strings.Count(c.record(t), "finished"); short < 24 {
			return fmt.Errorf("%d of 24 short tasks are finished", short)
		}
		return c.hasBusyWorkersOnly(t)
	})
}

// losesWorker deletes the pod of a worker whose task is longer than its grace period, as
// celery-hpa and the HPA have not done with all those before. The broker has forgotten the
// task, and celery-hpa must not wait for it.
func (c *cluster) losesWorker(t *testing.T) {
	c.begin(t)
	c.send(t, 1, "hold")
	eventually.Succeeds(t, patience, "the task is executed", func() error { return c.executes(t, 1) })
	worker := c.holders(t)[0]
	c.kubectl(t, "delete", "pod", worker, "--namespace="+space)
	eventually.Succeeds(t, patience, "the end of the worker is seen", func() error {
		if _, gone := c.ends.of(worker); !gone {
			return fmt.Errorf("no end of worker %s was seen", worker)
		}
		return nil
	})
	if code, _ := c.ends.of(worker); code != killed {
		t.Errorf("worker %s ended with exit code %d, want %d, by SIGKILL", worker, code, killed)
	}
	c.awaitReplicas(t, "0")
	c.awaitNoWorkers(t)
	if err := c.executes(t, 1); err != nil { // as is recorded: it never finished
		t.Error(err)
	}
}

func (c *cluster) uninstalls(t *testing.T) {
	c.kubectl(t, "delete", "namespace", space, "--timeout=3m")
	c.kubectl(t, "delete", "persistentvolume", "broker", "--timeout=3m")
	c.helm(t, "uninstall", "celery-hpa", "--wait")
	c.kubectl(t, "delete", "namespace", system, "--timeout=3m")
	const kinds = "customresourcedefinitions,apiservices,validatingwebhookconfigurations,mutatingwebhookconfigurations," +
		"clusterroles,clusterrolebindings,roles,rolebindings,leases,secrets,configmaps,servicemonitors,prometheusrules"
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
	eventually.Succeeds(t, patience, "no mount and no container is left", func() error { return errors.Join(c.hasNoMounts(), hasNoContainers()) })
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
