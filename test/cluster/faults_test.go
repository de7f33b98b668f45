//go:build linux

package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// survives has what can fail in a cluster fail, and the chart upgraded, while two tasks are
// executed for as long as that takes.
func (c *cluster) survives(t *testing.T) {
	c.begin(t)
	c.send(t, 2, "hold")
	eventually.Succeeds(t, patience, "the tasks are executed", func() error { return c.executes(t, 2) })
	busy := c.holders(t)
	bearing := func(fault func(*testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			began := time.Now()
			fault(t)
			c.awaitHeld(t, began)
			c.expectUntouched(t, busy)
		}
	}
	walk(t,
		step{"the replica that leads is deleted", bearing(c.losesLeader)},
		step{"containerd is restarted", bearing(c.restartsContainerd)},
		step{"the chart is upgraded under load", bearing(c.upgrades)},
		step{"kubectl shows what waits and what is executed", c.showsNumbers},
		step{"the broker's pod is deleted under load", c.losesBroker},
		step{"all is executed, and back to zero", c.finish},
	)
}

func (c *cluster) losesLeader(t *testing.T) {
	leader := c.leader(t)
	c.kubectl(t, "delete", "pod", leader, "--namespace="+system)
	eventually.Succeeds(t, patience, "another pod leads", func() error {
		if now := c.leader(t); now == leader || now == "" {
			return fmt.Errorf("%q leads", now)
		}
		return nil
	})
	c.kubectl(t, "rollout", "status", "deployment/celery-hpa", "--namespace="+system, "--timeout=3m")
}

func (c *cluster) restartsContainerd(t *testing.T) {
	check(t, c.Restart("containerd"))
	eventually.Succeeds(t, patience, "commands can be run in the sender", func() error {
		_, err := c.Kubectl(t.Context(), c.inSender("true")...)
		return err
	})
}

// showsNumbers fills all slots of the largest fleet, so that tasks wait. They are longer
// than the grace period: one that began on a worker that the HPA has just given up would be
// killed.
func (c *cluster) showsNumbers(t *testing.T) {
	eventually.Succeeds(t, patience, "the busy workers alone are left", func() error { return c.hasBusyWorkersOnly(t) })
	c.send(t, 4, "hold")
	c.awaitReplicas(t, "3")
	eventually.Succeeds(t, patience, "all slots are taken", func() error { return c.executes(t, 6) })
	c.send(t, 6, "work", "1")
	eventually.Succeeds(t, patience, "all tasks are counted", func() error { return c.hasTasks(t, 12) })
	eventually.Succeeds(t, patience, "kubectl shows the numbers", func() error { return c.shows(t, "redis", "True", "1", "6", "6") })
}

// shows tells whether kubectl lists one broker so.
func (c *cluster) shows(t *testing.T, row ...string) error {
	t.Helper()
	got := c.kubectl(t, "get", "celerybrokers", "--namespace="+space)
	want := append([]string{"NAME", "READY", "QUEUES", "BACKLOG", "IN-FLIGHT", "AGE"}, row...)
	if fields := strings.Fields(got); len(fields) != len(want)+1 || !slices.Equal(fields[:len(want)], want) {
		return fmt.Errorf("kubectl lists:\n%s\nwant %q", got, row)
	}
	return nil
}

// losesBroker keeps the broker's next pod from starting for longer than it takes to scale
// down and go to zero, if anybody took the missing counts for zero.
func (c *cluster) losesBroker(t *testing.T) {
	busy := c.holders(t)
	c.kubectl(t, "cordon", "node")
	c.kubectl(t, "delete", "pod", "redis-0", "--namespace="+space)
	eventually.Succeeds(t, patience, "the metric is an error", func() error { return c.hasNoTasks(t, 12) })
	for unknown := time.Now(); time.Since(unknown) < 2*(stabilization+idleWindow); time.Sleep(time.Second) {
		if err := c.hasNoTasks(t, 12); err != nil {
			t.Fatal(err)
		}
		c.expectReplicas(t, "3")
	}
	c.expectUntouched(t, busy)
	c.kubectl(t, "uncordon", "node")
	c.kubectl(t, "rollout", "status", "statefulset/redis", "--namespace="+space, "--timeout=3m")
	eventually.Succeeds(t, patience, "all tasks are counted again", func() error { return c.hasTasks(t, 12) })
	c.expectUntouched(t, busy)
}

// hasNoTasks tells whether the metric is an error that names the broker. Until then it must
// be what it was last.
func (c *cluster) hasNoTasks(t *testing.T, last int64) error {
	t.Helper()
	got, err := c.tasks(t)
	if err == nil && got.Value.Value() != last {
		t.Fatalf("%s tasks in the queue of a broker that is gone, and before %d", &got.Value, last)
	}
	if err == nil {
		return fmt.Errorf("the metric is still served, of %s", got.Timestamp)
	}
	if !strings.Contains(err.Error(), "ServiceUnavailable") || !strings.Contains(err.Error(), "workers/redis") {
		t.Fatalf("the metric of a broker that is gone: %v", err)
	}
	return nil
}

// awaitHeld waits until the two tasks that are held are seen again, and have been for
// longer than it takes to go to zero, after something failed at that time.
func (c *cluster) awaitHeld(t *testing.T, failed time.Time) {
	t.Helper()
	seen := time.Time{}
	eventually.Succeeds(t, patience, "the tasks are seen for longer than it takes to go to zero", func() error {
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

// leader is the pod that leads: what is before the underline of its identity.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	holder := c.kubectl(t, "get", "lease", "celery-hpa", "--namespace="+system, "--output=jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	return pod
}
