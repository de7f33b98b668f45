package bench_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// BenchmarkHeartbeats measures what it takes to hear 1,000 workers whose counts change
// with every heartbeat, and to ask them by remote control which tasks they execute: the
// program as it is shipped, beside one on the same broker that hears nobody.
//
//	more-core-%, more-RSS-MiB  beyond the program that hears nobody
//	core-%, RSS-MiB            all of the program
//	heard/s                    heartbeats, of 500 a second
//	executing                  tasks that it knows by remote control, of about 2,000
func BenchmarkHeartbeats(b *testing.B) {
	for _, kind := range []struct {
		name string
		join func(*testing.B) (string, medium)
	}{{"Redis", joinRedis}, {"RabbitMQ", joinRabbitMQ}} {
		for name, workers := range map[string]string{"heard": "{remoteControl: false}", "heard and asked": "{}"} {
			b.Run(kind.name+", "+name, func(b *testing.B) {
				spec, m := kind.join(b)
				c := newCrowd(m)
				c.begin(b)
				measureHearing(b, spec, workers)
			})
		}
	}
}

// measureHearing compares two programs after both have run for a while.
func measureHearing(b *testing.B, spec, workers string) {
	binary := filepath.Join(b.TempDir(), "celery-hpa")
	build(b, binary)
	deaf := launch(b, binary, spec+", workers: {heartbeats: false}")
	hearing := launch(b, binary, spec+", workers: "+workers)
	time.Sleep(settle)
	deafBefore, hearingBefore, heardBefore := processorTime(b, deaf.pid), processorTime(b, hearing.pid), hearing.heard(b)
	time.Sleep(settle)
	without := 100 * (processorTime(b, deaf.pid) - deafBefore).Seconds() / settle.Seconds()
	with := 100 * (processorTime(b, hearing.pid) - hearingBefore).Seconds() / settle.Seconds()
	b.ReportMetric(with, "core-%")
	b.ReportMetric(with-without, "more-core-%")
	b.ReportMetric(hearing.memory(b), "RSS-MiB")
	b.ReportMetric(hearing.memory(b)-deaf.memory(b), "more-RSS-MiB")
	b.ReportMetric((hearing.heard(b)-heardBefore)/settle.Seconds(), "heard/s")
	b.ReportMetric(hearing.metric(b, `celery_queue_in_flight\{.*queue="celery"\}`), "executing")
	b.ReportMetric(0, "ns/op")
}

// process is a running celery-hpa.
type process struct {
	pid     int
	address string
}

// launch starts the program with one broker, on a port that is known.
func launch(b *testing.B, binary, spec string) process {
	b.Helper()
	brokers := filepath.Join(b.TempDir(), "brokers.yaml")
	document := "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: bench}\nspec: {" + spec + "}\n"
	if err := os.WriteFile(brokers, []byte(document), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(binary, "serve", "--local", "--listen", address, "--brokers-file", brokers)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return process{cmd.Process.Pid, address}
}

// memory is its resident memory, in MiB.
func (p process) memory(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes(b, string(status), "VmRSS:") / 1024
}

// heard is how many events it has heard.
func (p process) heard(b *testing.B) float64 {
	b.Helper()
	return p.metric(b, `celery_hpa_worker_events_total\{.*result="heard"\}`)
}

// metric reads a series of /metrics, 0 if there is none.
func (p process) metric(b *testing.B, series string) (n float64) {
	b.Helper()
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+p.address+"/metrics", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + series + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return 0
	}
	if _, err := fmt.Sscan(string(found[1]), &n); err != nil {
		b.Fatal(err)
	}
	return n
}
