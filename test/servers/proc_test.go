package servers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// childrenOf lists the children of all threads of a process.
func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread that has ended has none
		children = append(children, strings.Fields(string(text))...)
	}
	return children
}

// descendantsOf lists the children of a process, and theirs.
func descendantsOf(t *testing.T, pid int) []string {
	t.Helper()
	all := childrenOf(t, pid)
	for _, child := range slices.Clone(all) {
		id, err := strconv.Atoi(child)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, descendantsOf(t, id)...)
	}
	return all
}

// isRunning is false for a process that is gone or waits to be reaped.
func isRunning(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
