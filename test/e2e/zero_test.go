package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// idleWindow is for how long a fleet of these tests must have had nothing to do. What is
// to hold it awake takes longTime, which is much longer.
const (
	idleWindow = 5 * time.Second
	longTime   = 3 * idleWindow
	// holdTime is for how long it is tried whether something is left undone.
	holdTime = 2 * idleWindow
)

// startSleeper runs a playground whose workers go to zero, by celery-hpa in the old
// world or by the HPA itself in the new one. In the beginning there is one worker.
func startSleeper(t *testing.T, o playground.Options) *playground.Playground {
	t.Helper()
	o.Output = os.Stdout
	o.OldWorld = !o.Workers.HPASleeps
	o.Workers.ScaleToZero, o.Workers.IdleWindow = true, idleWindow
	if o.HPASyncPeriod == 0 {
		o.HPASyncPeriod = hpaSync
	}
	if o.DownscaleStabilization == 0 {
		o.DownscaleStabilization = 2 * hpaSync
	}
	p, err := playground.Start(t.Context(), o)
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
	return p
}

func clientsOf(t *testing.T, p *playground.Playground) kubernetes.Interface {
	t.Helper()
	clients, err := kubernetes.NewForConfig(p.Cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// send sends tasks.
func send(t *testing.T, p *playground.Playground, b playground.Batch) playground.Sent {
	t.Helper()
	sent, err := p.Send(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// awaitAsleep blocks until the fleet is at zero and its last pod is gone.
func awaitAsleep(t *testing.T, p *playground.Playground) {
	t.Helper()
	await(t, p, "to go to zero", func(s playground.Status) bool {
		return s.Wanted == 0 && allPods(t, p) == 0
	})
}

// allPods counts the workers' pods, those included that are ending.
func allPods(t *testing.T, p *playground.Playground) int {
	t.Helper()
	began, ended := podsOf(p)
	return began - ended
}

// history is every number of replicas that the fleet was to have.
func history(t *testing.T, p *playground.Playground) []playground.Change {
	t.Helper()
	changes, err := p.History()
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// since are the changes after a moment.
func since(t *testing.T, p *playground.Playground, at time.Time) []playground.Change {
	t.Helper()
	all := history(t, p)
	for i, c := range all {
		if c.At.After(at) {
			return all[i:]
		}
	}
	return nil
}

// awaitChange blocks until the fleet was to have such a number of replicas, after a
// moment, and returns when.
func awaitChange(t *testing.T, p *playground.Playground, after time.Time, what string, reached func(int32) bool) playground.Change {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, c := range since(t, p, after) {
			if reached(c.Replicas) {
				return c
			}
		}
	}
	t.Fatalf("not within %s: %s; the replicas were %v", patience, what, history(t, p))
	return playground.Change{}
}

// awaitWake blocks until the fleet has left zero after a moment.
func awaitWake(t *testing.T, p *playground.Playground, after time.Time) playground.Change {
	t.Helper()
	return awaitChange(t, p, after, "the workers to be woken", func(n int32) bool { return n > 0 })
}

// holds fails if the fleet is to have another number of replicas at any time of the
// next while.
func holds(t *testing.T, p *playground.Playground, replicas int32, why string) {
	t.Helper()
	before := history(t, p)
	if last := before[len(before)-1]; last.Replicas != replicas {
		t.Fatalf("%s: the replicas are %v, want %d", why, before, replicas)
	}
	for end := time.Now().Add(holdTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if now := history(t, p); len(now) != len(before) {
			t.Fatalf("%s: the replicas went to %v, want them held at %d", why, now[len(before):], replicas)
		}
	}
}

// awakeUntilFinished fails if the fleet was to be at zero between a message and the
// end of the last task.
func awakeUntilFinished(t *testing.T, p *playground.Playground, sent playground.Sent) {
	t.Helper()
	ended := lastEnd(t, p)
	for _, c := range since(t, p, sent.Last) {
		if c.Replicas == 0 && c.At.Before(ended) {
			t.Errorf("the workers were to be %s, before the end of the last task at %s", c, ended.Format("15:04:05.000"))
		}
	}
}

// lastEnd is when the last task finished.
func lastEnd(t *testing.T, p *playground.Playground) time.Time {
	t.Helper()
	var last time.Time
	for _, e := range executions(t, p) {
		if e.FinishedAt.After(last) {
			last = e.FinishedAt
		}
	}
	return last
}

func executions(t *testing.T, p *playground.Playground) []playground.Execution {
	t.Helper()
	all, err := p.Executions()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// annotate sets an annotation of the HPA, or with an empty value takes it off.
func annotate(t *testing.T, p *playground.Playground, key, value string) {
	t.Helper()
	change := key + "=" + value
	if value == "" {
		change = key + "-"
	}
	if _, err := p.Cluster.Kubectl(t.Context(), "-n", playground.Namespace, "annotate", "--overwrite", "hpa", playground.Workers, change); err != nil {
		t.Fatal(err)
	}
}

// kubectl runs it as a person does, in the namespace of the workers, and returns what
// it said, warnings included.
func kubectl(t *testing.T, p *playground.Playground, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.Cluster.BinDir(), "kubectl"), append([]string{"-n", playground.Namespace}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Cluster.Kubeconfig(), "KUBERC=off", "KUBECACHEDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// scale asks for a number of workers, as a person does.
func scale(t *testing.T, p *playground.Playground, replicas int) string {
	t.Helper()
	return kubectl(t, p, "scale", "deployment", playground.Workers, fmt.Sprintf("--replicas=%d", replicas))
}

// TestAnnotationsStopEverything takes away, at zero and above, what the HPA asks for.
func TestAnnotationsStopEverything(t *testing.T) {
	p := startSleeper(t, playground.Options{Broker: playground.Redis})
	for _, c := range []struct{ rule, key, stop, again string }{
		{"a paused target stays as it is", v1alpha1.AnnotationPaused, "true", ""},
		{"a target that no longer asks for it stays as it is", v1alpha1.AnnotationScaleToZero, "", "true"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			awaitAsleep(t, p)
			annotate(t, p, c.key, c.stop)
			before := len(executions(t, p))
			sent := send(t, p, playground.Batch{Tasks: 1})
			holds(t, p, 0, "with a message that waits")
			annotate(t, p, c.key, c.again)
			awaitWake(t, p, sent.First)
			await(t, p, "the task to finish", func(s playground.Status) bool { return s.Finished > before })
			annotate(t, p, c.key, c.stop)
			holds(t, p, 1, "without anything to do")
			annotate(t, p, c.key, c.again)
			awaitAsleep(t, p)
		})
	}
	checkTasks(t, p, 2)
}
