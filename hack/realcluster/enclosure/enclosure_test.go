//go:build linux

package enclosure_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/realcluster/enclosure"
)

// enclosedEnv makes the test binary be a program that runs in an enclosure.
const enclosedEnv = "ENCLOSURE_TEST"

const witness = "/var/celery-hpa-enclosure-test"

func TestMain(m *testing.M) {
	if os.Getenv(enclosedEnv) == "" {
		os.Exit(m.Run())
	}
	os.Exit(enclosure.Run(inside))
}

// inside tells what it sees, and leaves a process and a file behind.
func inside() int {
	if err := see(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 42
}

func see() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, found := range interfaces {
		if found.Flags&net.FlagUp != 0 {
			return fmt.Errorf("interface %s is up", found.Name)
		}
	}
	orphan := exec.Command("setsid", "sleep", "300")
	if err := orphan.Start(); err != nil {
		return err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	if len(processes) != 3 {
		return fmt.Errorf("%q run, want three processes", processes)
	}
	fmt.Println(enclosure.Dir())
	return os.WriteFile(witness, nil, 0o600)
}

func TestNothingIsLeftOfAnEnclosure(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), enclosedEnv+"=1")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).ExitStatus() != 42 {
		t.Fatalf("%v, want the exit code of the main part, 42: %s", err, &complaint)
	}
	dir := strings.TrimSpace(string(out))
	for _, path := range []string{dir, witness} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
