package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// settle is how long the idle process runs before it is looked at: some garbage
// collections, and as many samples.
const settle = 30 * time.Second

// BenchmarkFootprint measures the program as it is shipped, idle with one broker
// and three queues, sampled once a second: the size of its file, its memory, and
// its share of a core.
func BenchmarkFootprint(b *testing.B) {
	redis := servers.StartRedis(b, servers.RedisOptions{})
	pid, binary := serve(b, fmt.Sprintf("url: {value: %q}, queues: [{name: a}, {name: b}, {name: c}]", redis.URL(0)))
	time.Sleep(settle)
	report(b, pid, binary)
}

// serve runs the program as it is shipped, with one broker. Spec is in YAML's flow
// style.
func serve(b *testing.B, spec string) (pid int, binary string) {
	b.Helper()
	dir := b.TempDir()
	binary = filepath.Join(dir, "celery-hpa")
	brokers := filepath.Join(dir, "brokers.yaml")
	build(b, binary)
	document := "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: bench}\nspec: {" + spec + "}\n"
	if err := os.WriteFile(brokers, []byte(document), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", "--local", "--listen", "127.0.0.1:0", "--brokers-file", brokers)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd.Process.Pid, binary
}

func build(b *testing.B, binary string) {
	b.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", binary, "github.com/celery-hpa/celery-hpa/cmd/celery-hpa")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build celery-hpa: %v: %s", err, out)
	}
}

// report reads the figures from /proc (proc(5)).
func report(b *testing.B, pid int, binary string) {
	b.Helper()
	info, err := os.Stat(binary)
	if err != nil {
		b.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "binary-MB")
	b.ReportMetric(kilobytes(b, string(status), "VmRSS:")/1024, "RSS-MiB")
	b.ReportMetric(kilobytes(b, string(status), "RssAnon:")/1024, "anonymous-MiB")
	b.ReportMetric(100*processorTime(b, pid).Seconds()/settle.Seconds(), "core-%")
	b.ReportMetric(0, "ns/op")
}

// processorTime is what a process has used, user and system: fields 14 and 15 of
// its stat, in hundredths of a second.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	var user, system int64
	for i, ticks := range []*int64{&user, &system} {
		if _, err := fmt.Sscan(fields[11+i], ticks); err != nil {
			b.Fatal(err)
		}
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func kilobytes(b *testing.B, status, name string) float64 {
	b.Helper()
	for line := range strings.Lines(status) {
		if rest, found := strings.CutPrefix(line, name); found {
			var kb float64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				b.Fatal(err)
			}
			return kb
		}
	}
	b.Fatalf("/proc shows no %s", name)
	return 0
}
