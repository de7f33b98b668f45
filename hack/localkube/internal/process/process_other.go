//go:build unix && !linux

package process

import (
	"errors"
	"fmt"
	"syscall"
)

// attributes refuses: without the parent-death signal and a wait that does not
// reap, children could be left behind.
func attributes() (*syscall.SysProcAttr, error) {
	return nil, fmt.Errorf("the local control plane runs on Linux only: %w", errors.ErrUnsupported)
}

func awaitExit(int) {}
