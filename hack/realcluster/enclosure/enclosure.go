//go:build linux

package enclosure

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// The program runs three times, one in the other: outside, as the first process of the
// namespaces, which starts the third and collects orphans, and as the main part.
const (
	stageEnv = "CELERY_HPA_ENCLOSURE"
	dirEnv   = "CELERY_HPA_ENCLOSURE_DIR"

	stageInit = "init"
	stageMain = "main"
)

// failed is the exit code if the enclosure itself fails.
const failed = 125

// Dir is a folder for what the main part writes, which is removed afterwards. It is empty
// outside an enclosure.
func Dir() string { return os.Getenv(dirEnv) }

// Run runs body in a copy of this process inside the enclosure, with the same arguments
// and standard files, and returns its exit code; it must be called at the start of main or
// TestMain. SIGINT and SIGTERM end
// everything in the enclosure at once. What the enclosure could not do, and what was left
// of it, is told on standard error, and is a failure.
func Run(body func() int) int {
	code, err := 0, error(nil)
	switch os.Getenv(stageEnv) {
	case stageInit:
		code, err = runInit(Dir())
	case stageMain:
		return body()
	default:
		code, err = runOutside()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "enclosure:", err)
		return failed
	}
	return code
}

func runOutside() (code int, err error) {
	dir, err := os.MkdirTemp("", "celery-hpa-cluster-")
	if err != nil {
		return 0, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	before, err := cgroups()
	if err != nil {
		return 0, err
	}
	child, err := start(dir)
	if err != nil {
		return 0, err
	}
	inside, err := namespacesOf(child.Process.Pid)
	if err != nil {
		return 0, errors.Join(err, child.Process.Kill(), child.Wait())
	}
	code = await(child)
	return code, errors.Join(removeCgroups(before), checkNobody(inside))
}

func start(dir string) (*exec.Cmd, error) {
	runtime.LockOSThread() // for good: the signal of a parent's death is that of its thread's
	cmd := again(stageInit, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a Ctrl-C is for us, who then end it
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	return cmd, nil
}

// again is this program again, at another stage.
func again(stage, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"="+stage, dirEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// await waits for the first process of the namespaces, with which the kernel ends all
// others before it tells of its end.
func await(child *exec.Cmd) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ended := make(chan struct{})
	go func() {
		select {
		case <-signals:
			_ = child.Process.Kill()
		case <-ended:
		}
	}()
	_ = child.Wait() // the outcome is in ProcessState
	close(ended)
	return exitCode(child.ProcessState.Sys().(syscall.WaitStatus))
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// runInit is the first process: to it come the orphans, which it collects.
func runInit(dir string) (int, error) {
	if err := setUp(dir); err != nil {
		return 0, err
	}
	body := again(stageMain, dir)
	if err := body.Start(); err != nil {
		return 0, fmt.Errorf("start the main part: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the main part: %w", err)
		case pid == body.Process.Pid:
			return exitCode(status), nil
		}
	}
}
