package process

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Process is a started child. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}

	// mu guards reaped: after the child was reaped its id may belong to someone
	// else and must not be signalled any more.
	mu     sync.Mutex
	reaped bool
}

// Start starts cmd, whose SysProcAttr it sets, and waits for it in the
// background. When the child ends, whatever is left of its process group is
// killed, as everything in a container ends with its first process. To keep that
// wait from depending on descendants, cmd's output should go to an *os.File.
func Start(cmd *exec.Cmd) (*Process, error) {
	attributes, err := attributes()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = attributes
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// run keeps the thread that started the child until the child has ended: the
// kernel's parent-death signal is sent when that thread ends, not when the
// process does (prctl(2), PR_SET_PDEATHSIG; golang/go#27505).
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	awaitExit(p.cmd.Process.Pid)
	p.reap()
	close(p.done)
}

// reap kills the rest of the group while the dead leader still holds the group's
// id, and collects the leader.
func (p *Process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	_ = p.cmd.Wait() // the outcome is in ProcessState
	p.reaped = true
}

// PID is the child's process id, which is also the id of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is the code that the child ended with, or 128 plus the number of the
// signal that ended it, as shells and container runtimes count. It blocks until
// the child has ended.
func (p *Process) ExitCode() int {
	<-p.done
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal to the child alone. A child that has ended is no error.
func (p *Process) Signal(signal syscall.Signal) error { return p.kill(p.PID(), signal) }

// KillGroup sends SIGKILL to the child and to every process of its group. A
// child that has ended is no error.
func (p *Process) KillGroup() error { return p.kill(-p.PID(), syscall.SIGKILL) }

func (p *Process) kill(id int, signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(id, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", signal, id, err)
	}
	return nil
}
