package zero_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const leaseRights = `[{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}]`

// quick are times for those who wait for a lease to end; endless for those who do not:
// with them only a lease that was given back is ever free.
func quick() leader.Times {
	return leader.Times{Lease: 3 * time.Second, Renew: 2 * time.Second, Retry: 200 * time.Millisecond}
}

func endless() leader.Times {
	return leader.Times{Lease: time.Hour, Renew: 59 * time.Minute, Retry: 200 * time.Millisecond}
}

func (f *fixture) testLeader(t *testing.T) {
	for rule, test := range map[string]func(*testing.T){
		"one leads, and hands over when it ends":             f.handsOver,
		"one that is killed is replaced":                     f.replacesKilled,
		"one that stood still knows that it leads no more":   f.knowsItStoodStill,
		"one that cannot renew stops to lead and comes back": f.stopsWithoutRenewal,
		"one whose lease was taken stops to lead":            f.stopsWhenTaken,
		"without the rights it says so and leads nothing":    f.needsRights,
	} {
		t.Run(rule, test)
	}
}

// replica is one that takes part, within this process.
type replica struct {
	*leader.Elector
	registry *prometheus.Registry
	log      *syncBuffer
	led      atomic.Int32 // how often it was told that it leads
	stop     func()
}

func (f *fixture) replica(t *testing.T, config *rest.Config, namespace, identity string, times leader.Times) *replica {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{registry: prometheus.NewRegistry(), log: &syncBuffer{}}
	log := logger(io.MultiWriter(r.log, t.Output()))
	if r.Elector, err = leader.NewWithTimes(clients.CoordinationV1(), namespace, identity, log, r.registry, times); err != nil {
		t.Fatal(err)
	}
	r.Notify(func() {
		r.led.Add(1)
		if !r.Leads() {
			t.Errorf("%s is told that it leads, and does not", identity)
		}
	})
	r.stop = run(t, r.Run)
	return r
}

// await waits until the replica leads, or until it does not, and compares its metric.
func (r *replica) await(t *testing.T, leads bool) {
	t.Helper()
	want := "0"
	if leads {
		want = "1"
	}
	eventually.Succeeds(t, patience, fmt.Sprintf("leads: %t", leads), func() error {
		if r.Leads() != leads {
			return errors.New(r.log.String())
		}
		return testutil.GatherAndCompare(r.registry, strings.NewReader(`
# HELP celery_hpa_leader Whether this replica of celery-hpa leads (1), and so puts targets to sleep, or not (0).
# TYPE celery_hpa_leader gauge
celery_hpa_leader `+want+"\n"))
	})
}

// holder is who holds the lease.
func (f *fixture) holder(t *testing.T, namespace string) string {
	t.Helper()
	lease, err := f.admin.CoordinationV1().Leases(namespace).Get(t.Context(), leader.LeaseName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func (f *fixture) handsOver(t *testing.T) {
	namespace := f.namespace(t)
	config := f.as(t, namespace, "elector", leaseRights)
	a := f.replica(t, config, namespace, "a", endless())
	a.await(t, true)
	b := f.replica(t, config, namespace, "b", endless())
	eventually.Succeeds(t, patience, "b has seen a", func() error { return contains(b.log.String(), "Another replica leads") })
	if b.Leads() || !a.Leads() {
		t.Error("both lead, or none does")
	}
	a.stop()
	if a.Leads() {
		t.Error("a leads after its end")
	}
	b.await(t, true)
	if holder := f.holder(t, namespace); holder != "b" {
		t.Errorf("the lease is held by %q, want b", holder)
	}
	if a, b := a.led.Load(), b.led.Load(); a != 1 || b != 1 {
		t.Errorf("a was told %d times that it leads, b %d times, want once each", a, b)
	}
}

func (f *fixture) replacesKilled(t *testing.T) {
	namespace := f.namespace(t)
	a := f.candidate(t, namespace)
	a.await(t, "true")
	b := f.replica(t, f.as(t, namespace, "elector", leaseRights), namespace, "b", quick())
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	b.await(t, true)
}

func (f *fixture) knowsItStoodStill(t *testing.T) {
	namespace := f.namespace(t)
	a := f.candidate(t, namespace)
	a.await(t, "true")
	b := f.replica(t, f.as(t, namespace, "elector", leaseRights), namespace, "b", quick())
	for range 3 {
		a.signal(t, syscall.SIGSTOP)
		b.await(t, true)
		a.ask(t)
		a.signal(t, syscall.SIGCONT)
		if answer := a.answer(t); answer != "false" {
			t.Errorf("after it stood still, the old leader says that it leads: %s", answer)
		}
		b.stop()
		a.await(t, "true")
		b = f.replica(t, f.as(t, namespace, "elector", leaseRights), namespace, "b", quick())
	}
}

func (f *fixture) stopsWithoutRenewal(t *testing.T) {
	namespace := f.namespace(t)
	config := f.as(t, namespace, "elector", leaseRights)
	var silent atomic.Bool
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if silent.Load() {
				<-request.Context().Done()
				return nil, request.Context().Err()
			}
			return next.RoundTrip(request)
		})
	})
	a := f.replica(t, config, namespace, "a", quick())
	a.await(t, true)
	silent.Store(true)
	a.await(t, false)
	silent.Store(false)
	a.await(t, true)
	eventually.Succeeds(t, patience, "that is said", func() error { return contains(a.log.String(), "Takes part in the election of a leader again") })
}

func (f *fixture) stopsWhenTaken(t *testing.T) {
	namespace := f.namespace(t)
	a := f.replica(t, f.as(t, namespace, "elector", leaseRights), namespace, "a", endless())
	a.await(t, true)
	f.kubectl(t, "patch", "lease", leader.LeaseName, "--namespace="+namespace, "--type=merge", `--patch={"spec":{"holderIdentity":"somebody"}}`)
	a.await(t, false)
	eventually.Succeeds(t, patience, "that is said", func() error { return contains(a.log.String(), `msg="This replica leads no more"`) })
}

func (f *fixture) needsRights(t *testing.T) {
	namespace := f.namespace(t)
	config, err := f.cluster.ConfigFor("elector")
	if err != nil {
		t.Fatal(err)
	}
	a := f.replica(t, config, namespace, "a", quick())
	const missing = "the right to get leases of API group coordination.k8s.io in namespace "
	eventually.Succeeds(t, patience, "what is missing is said", func() error { return contains(a.log.String(), missing+namespace+" is missing") })
	a.await(t, false)
	f.as(t, namespace, "elector", leaseRights)
	a.await(t, true)
	if n := strings.Count(a.log.String(), missing); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}

// candidateEnv makes this test binary a replica of its own: it names the kubeconfig and
// the namespace, separated by a comma.
const candidateEnv = "CELERY_HPA_TEST_CANDIDATE"

// candidate is the main of such a process. It answers each line with whether it leads.
func candidate() int {
	kubeconfig, namespace, _ := strings.Cut(os.Getenv(candidateEnv), ",")
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return complain(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return complain(err)
	}
	a, err := leader.NewWithTimes(clients.CoordinationV1(), namespace, "a", logger(os.Stderr), prometheus.NewRegistry(), quick())
	if err != nil {
		return complain(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
			_, _ = fmt.Fprintln(os.Stdout, a.Leads())
		}
		stop() // whoever asks is gone
	}()
	if err := a.Run(ctx); err != nil {
		return complain(err)
	}
	return 0
}

func complain(err error) int {
	_, _ = fmt.Fprintln(os.Stderr, err)
	return 1
}

// process is a replica in a process of its own.
type process struct {
	cmd       *exec.Cmd
	questions io.Writer
	answers   *bufio.Reader
}

func (f *fixture) candidate(t *testing.T, namespace string) *process {
	t.Helper()
	kubeconfig, err := f.cluster.KubeconfigFor("candidate")
	if err != nil {
		t.Fatal(err)
	}
	f.as(t, namespace, "candidate", leaseRights)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), candidateEnv+"="+kubeconfig+","+namespace)
	cmd.Stderr = t.Output()
	questions, errIn := cmd.StdinPipe()
	answers, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &process{cmd: cmd, questions: questions, answers: bufio.NewReader(answers)}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *process) ask(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(p.questions, "do you lead?"); err != nil {
		t.Fatal(err)
	}
}

func (p *process) answer(t *testing.T) string {
	t.Helper()
	line, err := p.answers.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (p *process) await(t *testing.T, answer string) {
	t.Helper()
	eventually.Succeeds(t, patience, "the other process says "+answer, func() error {
		p.ask(t)
		if got := p.answer(t); got != answer {
			return errors.New(got)
		}
		return nil
	})
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("no %q in:\n%s", part, text)
	}
	return nil
}
