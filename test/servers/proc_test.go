package servers_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// redisURL starts a redis-server behind a socket of its own.
func redisURL(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "redis") //nolint:usetesting // a socket's path may have 107 bytes only
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "socket")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "")
	cmd.Dir = folder
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(folder)
	})
	await(t, "the socket of redis-server", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return "redis+socket://" + socket
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// isRunning is false for a process that is gone or waits to be reaped.
func isRunning(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
