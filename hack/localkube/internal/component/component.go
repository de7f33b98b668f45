package component

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/process"
)

const (
	// stopGrace is how long a component may take to end after SIGTERM. Its data
	// is thrown away, so that nothing is lost if it does not make it.
	stopGrace = 10 * time.Second
	// tailLines is how much of its log is quoted when a component died.
	tailLines = 15
)

// Component is one running program of the control plane.
type Component struct {
	name    string
	log     string
	restart func() (*Component, error)
	process *process.Process
	// stopping is true from the moment that the program was asked to end.
	stopping atomic.Bool
}

// Start runs the program of that name of the folder bin in the folder dir, with
// its output appended to NAME.log there.
func Start(bin, dir, name string, args []string) (*Component, error) {
	log := filepath.Join(dir, name+".log")
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer output.Close()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, output, output
	child, err := process.Start(cmd)
	if err != nil {
		return nil, err
	}
	restart := func() (*Component, error) { return Start(bin, dir, name, args) }
	return &Component{name: name, log: log, restart: restart, process: child}, nil
}

// Name is the name of the program.
func (c *Component) Name() string { return c.name }

// Restart stops the program and starts it anew, as another component, which it returns.
func (c *Component) Restart() (*Component, error) {
	if err := c.Stop(); err != nil {
		return nil, err
	}
	return c.restart()
}

// Stop ends the program and waits until it is gone. One that has ended is no error.
func (c *Component) Stop() error {
	c.stopping.Store(true)
	if err := c.process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	select {
	case <-c.process.Done():
		return nil
	case <-time.After(stopGrace):
	}
	if err := c.process.KillGroup(); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	<-c.process.Done()
	return nil
}

// died describes the end of a program that was not asked to end.
func (c *Component) died() error {
	return fmt.Errorf("%s ended with exit code %d; the end of its log:\n%s", c.name, c.process.ExitCode(), tail(c.log))
}

func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
