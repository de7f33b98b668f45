package process

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Janitor removes a folder when this process ends, however it ends: a shell that
// waits for the other end of its standard input to close, which the kernel does.
type Janitor struct {
	cmd    *exec.Cmd
	signal *os.File
}

// The second attempt is for the children of a killed parent, which may still be
// writing while the kernel ends them.
const janitorScript = `read -r _; rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }`

// StartJanitor starts the janitor of a folder. Clean must be called.
func StartJanitor(dir string) (*Janitor, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("watch over %s: %w", dir, err)
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", janitorScript, "localkube-janitor", dir)
	cmd.Stdin = read
	// A group of its own, or a Ctrl-C would end it before its work.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("watch over %s: %w", dir, err)
	}
	return &Janitor{cmd: cmd, signal: write}, nil
}

// Clean has the folder removed and waits until it is. Call it once.
func (j *Janitor) Clean() error {
	_ = j.signal.Close()
	if err := j.cmd.Wait(); err != nil {
		return fmt.Errorf("remove %s: %w", j.cmd.Args[len(j.cmd.Args)-1], err)
	}
	return nil
}
