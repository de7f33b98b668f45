package prometheus_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/playground"
)

const (
	// patience bounds every wait; none depends on its length.
	patience = 2 * time.Minute
	// longTask is longer than any test.
	longTask = time.Hour
)

// scenario is an installation in which things go wrong, and who watches it.
type scenario struct {
	*playground.Playground
	monitor *monitor
}

// TestAlertsAndPanels lets happen in an installation what there is an alert for, one
// trouble after the other. That CeleryHPARefusedForLong also counts refusals is left to
// promtool: here a broker is unknown all the time.
func TestAlertsAndPanels(t *testing.T) {
	s := start(t)
	s.awaitAsleep(t)
	s.awaitQuiet(t, "")
	provoked := map[string]bool{}
	for _, trouble := range s.troubles() {
		s.provoke(t, trouble.alerts, trouble.begin, trouble.cure)
		s.awaitAsleep(t)
		s.awaitQuiet(t, "")
		for _, alert := range trouble.alerts {
			provoked[alert] = true
		}
	}
	t.Run("the page of metrics lists what is scraped", s.checkMetricsPage)
	t.Run("no alert was left out", func(t *testing.T) { checkProvoked(t, provoked) })
	t.Run("every panel has shown something", s.checkPanels)
}

// trouble is something that goes wrong, with the alerts that tell of it.
type trouble struct {
	alerts      []string
	begin, cure func(*testing.T) // cure is nil where it comes right by itself
}

func (s *scenario) troubles() []trouble {
	return []trouble{
		{[]string{"CeleryHPAStuckAtMaximum"}, s.sendBurst, nil},
		{[]string{"CeleryHPAWakesFail", "CeleryHPAOldestTaskTooOld"}, s.takeRightToScale, s.giveRights},
		{[]string{"CeleryHPAMessagesStranded"}, s.killWorker, nil},
		{[]string{"CeleryHPABrokerUnknown", "CeleryHPARefusedForLong", "CeleryHPANotLeading"}, s.pauseBrokerAndTakeLease, s.resumeBrokerAndGiveRights},
		{[]string{"CeleryHPADown"}, s.stopProgram, s.startProgram},
	}
}

func start(t *testing.T) *scenario {
	t.Helper()
	p, err := playground.Start(t.Context(), playground.Options{
		Output: os.Stdout, Broker: playground.Redis, OldWorld: true, MaxReplicas: 2,
		HPASyncPeriod: time.Second, DownscaleStabilization: 2 * time.Second,
		Workers: playground.Fleet{
			ScaleToZero: true, IdleWindow: 3 * time.Second,
			GracePeriod: 5 * time.Second, VisibilityTimeout: 10 * time.Second,
		},
	})
	t.Cleanup(func() {
		if t.Failed() && p.Node != nil {
			t.Logf("what celery-hpa has logged:\n%s", p.ProgramLog())
		}
		// Else tasks would be waited for.
		if err := errors.Join(p.ReleaseTasks(), p.Stop()); err != nil {
			t.Errorf("stop the playground: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return &scenario{p, startMonitor(t, p)}
}

// provoke has alerts fire, and then resolve.
func (s *scenario) provoke(t *testing.T, alerts []string, begin, cure func(*testing.T)) {
	t.Helper()
	t.Logf("%s: %s", time.Now().Format(time.TimeOnly), strings.Join(alerts, ", "))
	begin(t)
	for _, alert := range alerts {
		s.awaitFiring(t, alert)
	}
	if cure != nil {
		cure(t)
	}
	for _, alert := range alerts {
		s.awaitQuiet(t, alert)
	}
}

// awaitFiring blocks until an alert fires, and looks at what a person gets.
func (s *scenario) awaitFiring(t *testing.T, alert string) {
	t.Helper()
	var last []firing
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		last = s.monitor.alerts(t, alert)
		if len(last) > 0 && last[0].State == "firing" {
			checkTexts(t, last[0])
			return
		}
	}
	t.Fatalf("%s does not fire within %s: %v", alert, patience, last)
}

// checkTexts fails if a template of an annotation was not filled, or names nothing.
func checkTexts(t *testing.T, a firing) {
	t.Helper()
	for name, text := range a.Annotations {
		if strings.Contains(text, "{{") || strings.Contains(text, "<error") || strings.Contains(text, "<no value>") {
			t.Errorf("%s: %s is %q", a.Labels["alertname"], name, text)
		}
	}
	for _, label := range []string{"broker", "hpa", "queue"} {
		if value := a.Labels[label]; value != "" && !strings.Contains(a.Annotations["summary"], value) {
			t.Errorf("%s: the summary %q does not name the %s %s", a.Labels["alertname"], a.Annotations["summary"], label, value)
		}
	}
}

// awaitQuiet blocks until an alert, or each of them, neither fires nor is about to.
func (s *scenario) awaitQuiet(t *testing.T, alert string) {
	t.Helper()
	var last []firing
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if last = s.monitor.alerts(t, alert); len(last) == 0 {
			return
		}
	}
	t.Fatalf("alerts that do not resolve within %s: %v", patience, last)
}

func (s *scenario) await(t *testing.T, what string, reached func(playground.Status) bool) {
	t.Helper()
	if err := s.Await(t.Context(), patience, reached); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// awaitAsleep blocks until the fleet is at zero, and all that it had to do is done.
func (s *scenario) awaitAsleep(t *testing.T) {
	t.Helper()
	s.await(t, "to go to zero", func(now playground.Status) bool { return now.Wanted == 0 && now.Ready == 0 })
}

func (s *scenario) send(t *testing.T, b playground.Batch) {
	t.Helper()
	if _, err := s.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// kubectl does something as an administrator, and returns what it answered.
func kubectl(t *testing.T, p *playground.Playground, args ...string) string {
	t.Helper()
	out, err := p.Cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// sendBurst sends more than all workers do in some seconds.
func (s *scenario) sendBurst(t *testing.T) {
	s.send(t, playground.Batch{Tasks: 12, Each: 2 * time.Second})
}

// takeRightToScale takes a right away, and sends work that then cannot wake anybody.
func (s *scenario) takeRightToScale(t *testing.T) {
	kubectl(t, s.Playground, "delete", "clusterrolebinding", "celery-hpa:scale")
	s.send(t, playground.Batch{Tasks: 1})
}

// giveRights gives celery-hpa all rights of the manifests again.
func (s *scenario) giveRights(t *testing.T) {
	rights, err := playground.Rights()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cluster.KubectlInput(t.Context(), bytes.NewReader(rights), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// killWorker has the last worker killed with a task in its hands, which Redis gives to
// the next one when it is overdue.
func (s *scenario) killWorker(t *testing.T) {
	before := s.sendLongTask(t)
	kubectl(t, s.Playground, "-n", playground.Namespace, "scale", "deployment", playground.Workers, "--replicas=0")
	s.await(t, "the worker to be killed", func(now playground.Status) bool { return now.Killed > before.Killed })
	if err := s.ReleaseTasks(); err != nil {
		t.Fatal(err)
	}
}

// sendLongTask blocks until a worker executes a task that does not end by itself, and
// returns what was before.
func (s *scenario) sendLongTask(t *testing.T) playground.Status {
	t.Helper()
	if err := s.HoldTasks(); err != nil {
		t.Fatal(err)
	}
	before, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, playground.Batch{Tasks: 1, Each: longTask})
	s.await(t, "the task to start", func(now playground.Status) bool { return now.Started > before.Started })
	return before
}

// pauseBrokerAndTakeLease stops the broker where it stands while a task executes, and
// takes away the right to hold the Lease.
func (s *scenario) pauseBrokerAndTakeLease(t *testing.T) {
	s.sendLongTask(t)
	s.signalBroker(t, syscall.SIGSTOP)
	kubectl(t, s.Playground, "-n", playground.SystemNamespace, "delete", "rolebinding", "celery-hpa:leader")
}

func (s *scenario) resumeBrokerAndGiveRights(t *testing.T) {
	s.signalBroker(t, syscall.SIGCONT)
	if err := s.ReleaseTasks(); err != nil {
		t.Fatal(err)
	}
	s.giveRights(t)
}

func (s *scenario) signalBroker(t *testing.T, signal syscall.Signal) {
	t.Helper()
	for _, e := range s.Node.Events() {
		if e.Kind == procnode.Start && strings.HasPrefix(e.Pod, string(s.Broker())+"-") {
			if err := syscall.Kill(e.PID, signal); err != nil {
				t.Fatalf("send %s to the broker: %v", signal, err)
			}
			return
		}
	}
	t.Fatal("no pod of the broker was ever started")
}

func (s *scenario) stopProgram(t *testing.T)  { s.scaleProgram(t, "0") }
func (s *scenario) startProgram(t *testing.T) { s.scaleProgram(t, "1") }

func (s *scenario) scaleProgram(t *testing.T, replicas string) {
	t.Helper()
	kubectl(t, s.Playground, "-n", playground.SystemNamespace, "scale", "deployment", "celery-hpa", "--replicas="+replicas)
}
