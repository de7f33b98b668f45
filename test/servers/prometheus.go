package servers

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// prometheusTimeout bounds the start of a server.
const prometheusTimeout = 30 * time.Second

// Prometheus is a prometheus on a free loopback port.
type Prometheus struct {
	port    int
	process *child.Process
}

// StartPrometheus starts a server with a file of configuration and returns when it is
// ready. It is stopped when the test ends, and what it has stored is gone then.
func StartPrometheus(t testing.TB, config string) *Prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("prometheus is not installed: run make setup: %v", err)
	}
	p := &Prometheus{port: child.FreePort(t)}
	p.process = child.Start(t, "prometheus", exec.Command(program,
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(t.TempDir(), "data"),
		"--web.listen-address="+p.address(), "--log.level=warn"))
	for deadline := time.Now().Add(prometheusTimeout); !p.isReady(t); time.Sleep(child.PollInterval) {
		select {
		case <-p.process.Done():
			t.Fatalf("prometheus does not start; its log:\n%s", p.process.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("prometheus is not ready within %s; its log:\n%s", prometheusTimeout, p.process.Log())
		}
	}
	return p
}

func (p *Prometheus) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// URL is that of the server, without a slash at the end.
func (p *Prometheus) URL() string { return "http://" + p.address() }

func (p *Prometheus) isReady(t testing.TB) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL()+"/-/ready", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
