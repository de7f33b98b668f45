package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// celeryProcess is a Python process with a process group of its own.
type celeryProcess struct {
	cmd     *exec.Cmd
	logPath string
	done    chan struct{}
}

// startCelery starts cmd and has it killed when the test ends. What it writes to
// standard error, and to standard output where cmd has no use for it, is kept.
func startCelery(t testing.TB, name string, cmd *exec.Cmd) *celeryProcess {
	t.Helper()
	p := &celeryProcess{cmd: cmd, logPath: filepath.Join(t.TempDir(), "log"), done: make(chan struct{})}
	log, err := os.Create(p.logPath)
	if err != nil {
		t.Fatalf("start Celery %s: %v", name, err)
	}
	defer log.Close() // the child has its own copy
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		t.Fatalf("start Celery %s: %v", name, err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of Celery %s:\n%s", name, p.log())
		}
	})
	return p
}

// run keeps the thread that started the child for as long as the child lives:
// the parent-death signal is sent when that thread ends (prctl(2)).
func (p *celeryProcess) run(started chan<- error) {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // how it ended is in its log
	}
}

// kill ends the whole group. It leaves the group of a process that has ended
// alone: its id may have been given to somebody else, and pool processes end
// with their parent.
func (p *celeryProcess) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *celeryProcess) log() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
