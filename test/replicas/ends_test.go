package replicas_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

var rounds = flag.Int("rounds", 1, "how often each replica, the leading one and the other, is killed and told to stop")

const (
	// busyHPAs have work all the time. Their syncs follow each other evenly, so that one
	// is due at any moment.
	busyHPAs = 12
	// slowestNode is how long a connection may still be given to a replica that is dead,
	// or was told to stop. A kubelet sees within a second that a container has ended
	// (its list of them is a second old at the most) and says so at once; kube-proxy
	// takes over an EndpointSlice within another (--iptables-min-sync-period).
	slowestNode = 2 * time.Second
)

// TestNoSyncFailsTwiceInARow takes away one of two replicas at any moment, again and
// again, while the HPAs go on: killed, no HPA's sync fails twice in a row, and work
// that arrives at zero workers wakes them meanwhile, whoever leads; told to stop, no
// sync fails at all, nor anything else that the API server asks.
//
// The next one is taken away when both are ready and each HPA has synced well once more:
// what is tried is one loss at a time.
func TestNoSyncFailsTwiceInARow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	names := busyNames()
	for i := range 2 * *rounds {
		names = append(names, sleeperName(i))
	}
	f.declare(t, names)
	program := build(t, "test")
	here := &pair{fixture: f, program: program}
	for range 2 {
		here.replicas = append(here.replicas, f.start(t, program))
	}
	for _, r := range here.replicas {
		r.awaitReady(t)
		f.entrance.add(r.address)
	}
	check(t, f.cluster.AwaitExternalMetrics(t.Context()))
	here.fill(t)
	here.startHPAs(t)
	here.changeLoad(t)
	here.syncs.awaitAll(t, busyHPAs)

	for range *rounds {
		t.Run("the leading one is killed", func(t *testing.T) { here.kill(t, true) })
		t.Run("the other one is told to stop", func(t *testing.T) { here.stop(t, false) })
		t.Run("the other one is killed", func(t *testing.T) { here.kill(t, false) })
		t.Run("the leading one is told to stop", func(t *testing.T) { here.stop(t, true) })
	}
	t.Logf("%d syncs went well; %d failed: %v; %d connections found nobody",
		here.syncs.total(), len(here.syncs.failures), here.syncs.failures, f.entrance.refused)
}

func busyNames() []string {
	var names []string
	for i := range busyHPAs {
		names = append(names, fmt.Sprintf("busy-%d", i))
	}
	return names
}

func sleeperName(i int) string { return fmt.Sprintf("sleeper-%d", i) }

// pair are two replicas under load.
type pair struct {
	*fixture
	program  string
	replicas []*replica
	syncs    *syncs
	kills    int
}

// fill gives each busy queue work.
func (p *pair) fill(t *testing.T) {
	t.Helper()
	for _, name := range busyNames() {
		check(t, p.redis.Admin().LPush(t.Context(), name, "a task").Err())
	}
	eventually.Succeeds(t, patience, "the metrics are there", func() error {
		for _, name := range busyNames() {
			if err := p.readMetric(t.Context(), name); err != nil {
				return err
			}
		}
		return nil
	})
}

// startHPAs makes those with work, one after the other over a sync period, and those of
// targets at zero. From then on every sync counts.
func (p *pair) startHPAs(t *testing.T) {
	t.Helper()
	for i := range 2 * *rounds {
		p.autoscale(t, sleeperName(i), 0, true)
	}
	for _, name := range busyNames() {
		began := time.Now()
		p.autoscale(t, name, 1, name == busyNames()[0])
		time.Sleep(syncPeriod/busyHPAs - time.Since(began))
	}
	p.syncs = openSyncs(t, p.auditLog)
}

// changeLoad adds and takes messages until the test ends. A busy queue is never empty.
func (p *pair) changeLoad(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var changing sync.WaitGroup
	changing.Go(func() {
		admin := p.redis.Admin()
		for ctx.Err() == nil {
			name := fmt.Sprintf("busy-%d", rand.N(busyHPAs))
			admin.LPush(ctx, name, "a task", "a task")
			admin.LTrim(ctx, name, 0, rand.N(int64(10)))
			time.Sleep(50 * time.Millisecond)
		}
	})
	t.Cleanup(func() {
		stop()
		changing.Wait()
	})
}

// readMetric asks for a metric through the API server, as the HPA does.
func (p *pair) readMetric(ctx context.Context, queue string) error {
	_, err := p.clients.Discovery().RESTClient().Get().
		AbsPath("/apis/external.metrics.k8s.io/v1beta1/namespaces", space, "celery_queue_tasks").
		Param("labelSelector", "queue="+queue).DoRaw(ctx)
	return err
}

// askForZero scales workers with work to zero as the HPA does, which celery-hpa has to
// refuse. That the API server could not ask is another refusal.
func (p *pair) askForZero(ctx context.Context) error {
	name := busyNames()[0]
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name}}
	_, err := p.hpa.AppsV1().Deployments(space).UpdateScale(ctx, name, scale, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return fmt.Errorf("%s may go to zero", name)
	}
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "zero.celery-hpa.io") {
		return err
	}
	return nil
}

// choose waits for a random moment and returns the replica that leads, or the other one,
// and its place.
func (p *pair) choose(t *testing.T, leading bool) (*replica, int) {
	t.Helper()
	leader := p.awaitLeader(t, p.replicas...)
	time.Sleep(time.Duration(p.random.Int64N(int64(syncPeriod))))
	for i, r := range p.replicas {
		if (r == leader) == leading {
			return r, i
		}
	}
	t.Fatal("there are no two replicas")
	return nil, 0
}

// kill kills a replica, which is started again in its pod, as a kubelet does.
func (p *pair) kill(t *testing.T, leading bool) {
	t.Helper()
	r, _ := p.choose(t, leading)
	r.signal(t, syscall.SIGKILL)
	_ = r.await(t) // it says that it was killed
	heard := p.leave(t, r)
	p.wakeSleeper(t)
	<-heard
	r.run(t, p.fixture)
	r.awaitReady(t)
	p.entrance.add(r.address)
	p.checkSyncs(t)
}

// leave has connections go elsewhere once the node has heard that a replica is gone, and
// returns a channel that is closed then.
func (p *pair) leave(t *testing.T, r *replica) <-chan struct{} {
	heard := make(chan struct{})
	timer := time.AfterFunc(time.Duration(p.random.Int64N(int64(slowestNode))), func() {
		p.entrance.remove(r.address)
		close(heard)
	})
	t.Cleanup(func() { timer.Stop() })
	return heard
}

// wakeSleeper sends a message to workers at zero, and waits until they are to be more.
// Nobody needs to lead for that.
func (p *pair) wakeSleeper(t *testing.T) {
	t.Helper()
	name := sleeperName(p.kills)
	p.kills++
	before, sent := p.lease(t), time.Now()
	check(t, p.redis.Admin().LPush(t.Context(), name, "a task").Err())
	eventually.Succeeds(t, patience, name+" is woken", func() error {
		found, err := p.clients.AppsV1().Deployments(space).Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && *found.Spec.Replicas == 0 {
			return fmt.Errorf("%s is at zero", name)
		}
		return err
	})
	woke := time.Now()
	t.Logf("woken within %s", woke.Sub(sent))
	if after := p.lease(t); *after.HolderIdentity != *before.HolderIdentity && woke.After(after.AcquireTime.Time) {
		t.Errorf("nobody has woken the workers before %s, when the next one led", after.AcquireTime)
	}
}

// checkSyncs waits until each HPA has synced well again.
func (p *pair) checkSyncs(t *testing.T) {
	t.Helper()
	failed := len(p.syncs.failures)
	p.syncs.awaitAll(t, busyHPAs)
	t.Logf("%d syncs failed", len(p.syncs.failures)-failed)
	if len(p.syncs.twice) > 0 {
		t.Errorf("failed twice in a row: %v", p.syncs.twice)
		p.syncs.twice = nil
	}
}

// stop tells a replica to stop. Another one is started in a new pod at that moment, as a
// Deployment does.
func (p *pair) stop(t *testing.T, leading bool) {
	t.Helper()
	old, place := p.choose(t, leading)
	asking := p.startAsking(t)
	failed := len(p.syncs.failures)
	old.signal(t, syscall.SIGTERM)
	heard := p.leave(t, old)
	p.replicas[place] = p.start(t, p.program)
	p.replicas[place].awaitReady(t)
	p.entrance.add(p.replicas[place].address)
	if err := old.await(t); err != nil {
		t.Errorf("it has ended with %v", err)
	}
	<-heard
	p.checkSyncs(t)
	asking.end(t)
	if n := len(p.syncs.failures) - failed; n > 0 {
		t.Errorf("%d syncs failed: %v", n, p.syncs.failures[failed:])
	}
}

// asking asks again and again, in every way, until it is ended.
type asking struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu       sync.Mutex
	asked    int
	failures []error
}

func (p *pair) startAsking(t *testing.T) *asking {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	a := &asking{stop: stop}
	ways := []func(context.Context) error{p.askForZero}
	for _, name := range busyNames()[:3] {
		ways = append(ways, func(ctx context.Context) error { return p.readMetric(ctx, name) })
	}
	for _, ask := range ways {
		a.all.Go(func() {
			for ctx.Err() == nil {
				a.note(ask(context.WithoutCancel(ctx)))
				time.Sleep(20 * time.Millisecond) // the machine has other things to do
			}
		})
	}
	t.Cleanup(func() {
		stop()
		a.all.Wait()
	})
	return a
}

func (a *asking) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if err != nil {
		a.failures = append(a.failures, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), err))
	}
}

func (a *asking) end(t *testing.T) {
	t.Helper()
	a.stop()
	a.all.Wait()
	if len(a.failures) > 0 {
		t.Errorf("%d of %d requests failed, first %v", len(a.failures), a.asked, a.failures[0])
	}
}
