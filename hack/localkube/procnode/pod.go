package procnode

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/launch"
	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/process"
)

const (
	// minGrace is what the kubelet grants in any case, to a pod deleted with no
	// grace as well (kubernetes/pkg/kubelet/pod_workers.go,
	// calculateEffectiveGracePeriod).
	minGrace = time.Second
	// maxBackoff is the longest pause before a restart, the kubelet's.
	maxBackoff = 5 * time.Minute
	// startError is the exit code that container runtimes report for a command
	// that could not be started.
	startError = 128
)

// podRun is the life of one pod on the node. One goroutine lives it; only
// endWithin is for others.
type podRun struct {
	node  *Node
	pod   *corev1.Pod
	since metav1.Time
	// grace receives the time that is left to the pod once it is to end. The
	// latest wish counts.
	grace chan time.Duration

	restarts int32
	lastExit *corev1.ContainerStateTerminated
}

func newPodRun(node *Node, pod *corev1.Pod) *podRun {
	return &podRun{node: node, pod: pod, since: metav1.Now(), grace: make(chan time.Duration, 1)}
}

// endWithin has the pod end, within the given time. It does not block. It is
// called by one goroutine at a time.
func (p *podRun) endWithin(grace time.Duration) {
	select {
	case <-p.grace: // a wish that nobody has heard yet
	default:
	}
	p.grace <- max(grace, minGrace)
}

// live starts the process, and restarts it as the pod's policy says, until the
// pod is deleted; then it removes the pod from the API. If ctx ends first, the
// process is ended and the API is left alone.
func (p *podRun) live(ctx context.Context) {
	program, err := launch.Read(p.pod)
	if err != nil {
		// Not the phase Failed: a ReplicaSet would make the next one at once, for ever.
		p.report(ctx, corev1.PodPending, waiting("CreateContainerConfigError", err.Error()))
		p.awaitEnd(ctx)
		p.remove(ctx)
		return
	}
	for {
		exit, asked := p.runOnce(ctx, program)
		switch {
		case asked:
			p.report(ctx, terminalPhase(exit), corev1.ContainerState{Terminated: exit})
		case !p.restartsAfter(exit):
			p.report(ctx, terminalPhase(exit), corev1.ContainerState{Terminated: exit})
			p.awaitEnd(ctx)
		case p.pause(ctx, exit):
			continue
		}
		p.remove(ctx)
		return
	}
}

// runOnce runs the process to its end and reports whether it was asked to end.
func (p *podRun) runOnce(ctx context.Context, program launch.Launch) (exit *corev1.ContainerStateTerminated, asked bool) {
	started := time.Now()
	output, err := p.node.openLog(p.pod)
	if err != nil {
		return terminated(startError, "StartError", err.Error(), started), false
	}
	defer output.Close()
	child, err := process.Start(program.Command(output))
	if err != nil {
		return terminated(startError, "StartError", err.Error(), started), false
	}
	p.record(Start, child)
	p.report(ctx, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(started)}})
	asked = p.attend(ctx, child)
	p.record(Exit, child)
	return terminated(child.ExitCode(), reasonFor(child.ExitCode()), "", started), asked
}

func reasonFor(code int) string {
	if code == 0 {
		return "Completed"
	}
	return "Error"
}

// attend waits for the process to end, and ends it if the pod or the node is to
// end; that it reports.
func (p *podRun) attend(ctx context.Context, child *process.Process) (asked bool) {
	select {
	case <-child.Done():
		return false
	case grace := <-p.grace:
		p.end(ctx, child, grace)
	case <-ctx.Done():
		p.end(ctx, child, p.node.stopGrace)
	}
	return true
}

// end sends SIGTERM to the main process, as container runtimes do, and SIGKILL to
// everything when the time is over. That time can still be shortened, by a second
// deletion or by the end of the node.
func (p *podRun) end(ctx context.Context, child *process.Process, grace time.Duration) {
	p.signal(SIGTERM, child)
	deadline := time.Now().Add(grace)
	stop := ctx.Done()
	for {
		select {
		case <-child.Done():
			return
		case grace = <-p.grace:
		case <-stop:
			stop, grace = nil, p.node.stopGrace
		case <-time.After(time.Until(deadline)):
			p.signal(SIGKILL, child)
			<-child.Done()
			return
		}
		if sooner := time.Now().Add(grace); sooner.Before(deadline) {
			deadline = sooner
		}
	}
}

func (p *podRun) signal(kind Kind, child *process.Process) {
	p.record(kind, child)
	var err error
	if kind == SIGKILL {
		err = child.KillGroup()
	} else {
		err = child.Signal(syscall.SIGTERM)
	}
	if err != nil {
		p.node.complain(err)
	}
}

func (p *podRun) record(kind Kind, child *process.Process) {
	event := Event{
		Time: time.Now(), Namespace: p.pod.Namespace, Pod: p.pod.Name, UID: p.pod.UID,
		Kind: kind, PID: child.PID(),
	}
	if kind == Exit {
		event.ExitCode = child.ExitCode()
	}
	p.node.journal.record(event)
}

func (p *podRun) restartsAfter(exit *corev1.ContainerStateTerminated) bool {
	switch p.pod.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exit.ExitCode != 0
	default:
		return true
	}
}

// pause reports the exit and waits before the next start: not at all after the
// first exit, then twice as long each time. It returns false if the pod or the
// node is to end.
func (p *podRun) pause(ctx context.Context, exit *corev1.ContainerStateTerminated) bool {
	p.lastExit = exit
	delay := backoff(p.node.restartBackoff, p.restarts)
	p.restarts++
	if delay > 0 {
		message := fmt.Sprintf("restarting in %s: %s", delay, exit.Message)
		p.report(ctx, corev1.PodRunning, waiting("CrashLoopBackOff", message))
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.grace:
	case <-ctx.Done():
	}
	return false
}

func backoff(base time.Duration, restarts int32) time.Duration {
	if restarts == 0 {
		return 0
	}
	delay := base
	for range restarts - 1 {
		if delay *= 2; delay >= maxBackoff {
			return maxBackoff
		}
	}
	return delay
}

func (p *podRun) awaitEnd(ctx context.Context) {
	select {
	case <-p.grace:
	case <-ctx.Done():
	}
}

func (p *podRun) report(ctx context.Context, phase corev1.PodPhase, state corev1.ContainerState) {
	patch, err := statusPatch(p.pod, p.status(phase, state))
	if err != nil {
		p.node.complain(err)
		return
	}
	p.node.patchStatus(ctx, p.pod, patch)
}

func (p *podRun) remove(ctx context.Context) { p.node.remove(ctx, p.pod) }

// openLog opens the file that the pod's output is appended to.
func (n *Node) openLog(pod *corev1.Pod) (*os.File, error) {
	path := n.PodLog(pod.Namespace, pod.Name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return file, nil
}
