//go:build linux

package enclosure_test

import (
	"bufio"
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
	"time"

	"github.com/celery-hpa/celery-hpa/hack/realcluster/enclosure"
)

// enclosedEnv makes the test binary be a program that runs in an enclosure.
const (
	enclosedEnv = "ENCLOSURE_TEST"
	untilEnd    = "end"
	untilSignal = "signal"
)

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
	if os.Getenv(enclosedEnv) == untilSignal {
		time.Sleep(time.Hour) // select {} alone is a deadlock, which ends a program
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
	if err := os.WriteFile(witness, nil, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, enclosure.Dir())
	return err
}

func TestNothingIsLeftOfAnEnclosure(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, test := range map[string]struct {
		until string
		code  int
	}{
		"that ends":               {untilEnd, 42},
		"that a signal has ended": {untilSignal, 128 + int(syscall.SIGKILL)},
	} {
		t.Run(name, func(t *testing.T) { checkNothingLeft(t, test.until, test.code) })
	}
}

func checkNothingLeft(t *testing.T, until string, code int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), enclosedEnv+"="+until)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir, err := bufio.NewReader(out).ReadString('\n') // a signal comes after that
	if err == nil && until == untilSignal {
		err = cmd.Process.Signal(syscall.SIGTERM)
	}
	_ = cmd.Wait() // the outcome is in ProcessState
	if got := cmd.ProcessState.ExitCode(); err != nil || got != code {
		t.Fatalf("exit code %d and %v, want %d: %s", got, err, code, &complaint)
	}
	for _, path := range []string{strings.TrimSpace(dir), witness} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
