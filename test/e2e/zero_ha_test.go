package e2e_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// TestTwoProcessesCoverForEachOther takes away the leading one of two, in every state
// of the workers. One that is killed is started anew at once, but nobody leads until
// its lease has run out.
func TestTwoProcessesCoverForEachOther(t *testing.T) {
	p := startSleeper(t, playground.Options{Broker: playground.Redis, Replicas: 2, Workers: playground.Fleet{AcksEarly: true}})
	var gone []string // leaders
	t.Run("killed while the workers sleep", func(t *testing.T) {
		awaitAsleep(t, p)
		gone = append(gone, killLeader(t, p, gone))
		_, sent, woke := wake(t, p)
		if at := led(t, p, gone); at.After(sent.First) && woke.At.After(at) {
			t.Errorf("nobody has woken the workers before %s, when the next one led", at)
		}
		awaitAsleep(t, p)
	})
	t.Run("killed while a message arrives", func(t *testing.T) {
		for range *rounds {
			gone = append(gone, killMidway(t, p, gone))
			awaitAsleep(t, p)
		}
	})
	t.Run("killed while a task executes", func(t *testing.T) {
		startTask(t, p)
		gone = append(gone, killLeader(t, p, gone))
		endTask(t, p)
		awaitAsleep(t, p)
		t.Logf("%s put the workers to sleep", leader(t, p, gone))
	})
	t.Run("taken away in good order", func(t *testing.T) {
		startTask(t, p)
		before := leader(t, p, gone)
		gone = append(gone, before)
		kubectl(t, p, "--namespace="+playground.SystemNamespace, "delete", "pod", podOf(before))
		t.Logf("%s led, and now %s", before, leader(t, p, gone))
		endTask(t, p)
		awaitAsleep(t, p)
	})
	checkOnce(t, p)
}

// wake sends one task to workers that sleep. It returns what the producer took to
// start, when it sent, and when the workers were woken.
func wake(t *testing.T, p *playground.Playground) (lead time.Duration, sent playground.Sent, woke playground.Change) {
	t.Helper()
	before, began := len(executions(t, p)), time.Now()
	sent = send(t, p, playground.Batch{Tasks: 1})
	woke = awaitWake(t, p, sent.First)
	t.Logf("woken %s after the message", woke.At.Sub(sent.First))
	await(t, p, "the task to finish", func(s playground.Status) bool { return s.Finished == before+1 })
	return sent.First.Sub(began), sent, woke
}

// killMidway kills the leader about when a message arrives, as far as that can be told
// by when another one did, and returns who it was.
func killMidway(t *testing.T, p *playground.Playground, gone []string) string {
	t.Helper()
	const spread = 40 * time.Millisecond
	lead, _, _ := wake(t, p)
	awaitAsleep(t, p)
	now := leader(t, p, gone)
	killed := make(chan time.Time, 1)
	time.AfterFunc(lead-spread/2+rand.N(spread), func() {
		_ = syscall.Kill(programs(p)[podOf(now)], syscall.SIGKILL) // it is waited for below
		killed <- time.Now()
	})
	before := len(executions(t, p))
	sent := send(t, p, playground.Batch{Tasks: 1})
	woke := awaitWake(t, p, sent.First)
	t.Logf("killed %s and woken %s after the message", (<-killed).Sub(sent.First), woke.At.Sub(sent.First))
	await(t, p, "the task to finish", func(s playground.Status) bool { return s.Finished == before+1 })
	return now
}

// killLeader kills the process that leads, and returns who it was.
func killLeader(t *testing.T, p *playground.Playground, gone []string) string {
	t.Helper()
	now := leader(t, p, gone)
	pid := programs(p)[podOf(now)]
	signal(t, pid, syscall.SIGKILL)
	eventually.Holds(t, patience, "the process to be gone", func() bool { return programs(p)[podOf(now)] != pid })
	return now
}

// programs are the processes of celery-hpa, by their pods.
func programs(p *playground.Playground) map[string]int {
	running := map[string]int{}
	for _, e := range p.Node.Events() {
		switch {
		case e.Namespace != playground.SystemNamespace:
		case e.Kind == procnode.Start:
			running[e.Pod] = e.PID
		case e.Kind == procnode.Exit:
			delete(running, e.Pod)
		}
	}
	return running
}

// leader blocks until a process of celery-hpa leads that is none of those that are
// gone, and returns who it is: its pod, and what tells it from others in that pod.
func leader(t *testing.T, p *playground.Playground, gone []string) string {
	t.Helper()
	return *awaitLease(t, p, gone).HolderIdentity
}

// led is since when such a process leads.
func led(t *testing.T, p *playground.Playground, gone []string) time.Time {
	t.Helper()
	return awaitLease(t, p, gone).AcquireTime.Time
}

func awaitLease(t *testing.T, p *playground.Playground, gone []string) coordinationv1.LeaseSpec {
	t.Helper()
	clients := clientsOf(t, p)
	var spec coordinationv1.LeaseSpec
	eventually.Holds(t, patience, "another process of celery-hpa to lead", func() bool {
		lease, err := clients.CoordinationV1().Leases(playground.SystemNamespace).Get(t.Context(), "celery-hpa", metav1.GetOptions{})
		if err != nil {
			return false
		}
		spec = lease.Spec
		return spec.HolderIdentity != nil && *spec.HolderIdentity != "" && !slices.Contains(gone, *spec.HolderIdentity)
	})
	return spec
}

func podOf(leader string) string {
	pod, _, _ := strings.Cut(leader, "_")
	return pod
}
