package localkube

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// janitor removes a folder when this process ends, however it ends: a shell that
// waits for the other end of its standard input to close, which the kernel does.
type janitor struct {
	cmd    *exec.Cmd
	signal *os.File
}

// The second attempt is for the children of a killed parent, which may still be
// writing while the kernel ends them.
const janitorScript = `read -r _; rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }`

func startJanitor(dir string) (*janitor, error) {
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
	return &janitor{cmd: cmd, signal: write}, nil
}

// clean has the folder removed and waits for it.
func (j *janitor) clean() error {
	_ = j.signal.Close()
	if err := j.cmd.Wait(); err != nil {
		return fmt.Errorf("remove %s: %w", j.cmd.Args[len(j.cmd.Args)-1], err)
	}
	return nil
}
