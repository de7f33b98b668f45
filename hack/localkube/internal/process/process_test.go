package process_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/process"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// patience bounds every wait for a state. Only a failing test waits that long.
const patience = 20 * time.Second

// parentEnv makes the test binary start a child, say its id, and wait to be
// killed.
const parentEnv = "PROCESS_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Exit(m.Run())
	}
	child, err := process.Start(exec.Command("sleep", "300"))
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(strconv.Itoa(child.PID()) + "\n")
	<-child.Done()
}

func TestExitCodeIsWhatAShellWouldSay(t *testing.T) {
	tests := map[string]struct {
		script string
		want   int
	}{
		"success":             {script: "exit 0", want: 0},
		"a code of its own":   {script: "exit 7", want: 7},
		"ended by a signal":   {script: "kill -TERM $$", want: 143},
		"killed by a SIGKILL": {script: "kill -KILL $$", want: 137},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			child := start(t, test.script)
			if got := child.ExitCode(); got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
			if err := child.Signal(syscall.SIGTERM); err != nil {
				t.Errorf("signalling a child that has ended: %v", err)
			}
		})
	}
}

func TestSignalReachesTheMainProcessOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "descendant")
	child := start(t, `trap 'wait; exit 3' TERM; (trap 'echo signalled >`+file+`' TERM; echo ready >`+file+`; sleep 1) & while :; do wait; done`)
	eventually.Holds(t, patience, "the descendant is ready", func() bool { return read(file) == "ready" })
	if err := child.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := child.ExitCode(); got != 3 {
		t.Errorf("exit code %d, want 3 from the child's own handler", got)
	}
	if got := read(file); got != "ready" {
		t.Errorf("the descendant says %q: it received the signal too", got)
	}
}

func TestDescendantsEndWithTheMainProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	child := start(t, `sleep 300 & echo $! >`+file)
	<-child.Done()
	pid, err := strconv.Atoi(read(file))
	if err != nil {
		t.Fatal(err)
	}
	eventually.Holds(t, patience, "the descendant is gone", func() bool { return gone(pid) })
}

func TestChildrenEndWhenTheParentIsKilled(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, _ := out.Read(line)
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if gone(pid) {
		t.Fatal("the child did not run")
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	eventually.Holds(t, patience, "the child is gone", func() bool { return gone(pid) })
}

func TestStartNamesTheProgramThatIsMissing(t *testing.T) {
	_, err := process.Start(exec.Command("/nonexistent/etcd"))
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/etcd") {
		t.Errorf("error %v does not name the program", err)
	}
}

func start(t *testing.T, script string) *process.Process {
	t.Helper()
	child, err := process.Start(exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := child.KillGroup(); err != nil {
			t.Error(err)
		}
		<-child.Done()
	})
	return child
}

// gone reports whether no live process has the id; one that nobody has collected
// yet counts as gone.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func read(file string) string {
	content, _ := os.ReadFile(file)
	return strings.TrimSpace(string(content))
}
