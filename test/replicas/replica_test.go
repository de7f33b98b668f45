package replicas_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// replica is a process of celery-hpa.
type replica struct {
	pod     string // the name by which the Lease knows it, with something of its own
	address string
	program string
	log     *servers.Transcript // of the process of now, or of the last one
	said    []*servers.Transcript
	process *exec.Cmd // nil once it has ended
}

// start starts a replica in a new pod. It is killed when the whole test ends.
func (f *fixture) start(t *testing.T, program string) *replica {
	t.Helper()
	r := &replica{pod: fmt.Sprintf("celery-hpa-%d", len(f.all)+1), address: fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t)), program: program}
	f.all = append(f.all, r)
	r.run(t, f)
	f.test.Cleanup(func() {
		if r.process != nil {
			r.signal(f.test, syscall.SIGKILL)
			_ = r.await(f.test)
		}
		if f.test.Failed() {
			for _, log := range r.said {
				f.test.Logf("%s has said:\n%s", r.pod, log)
			}
		}
	})
	return r
}

// run runs the program, with the flags of the manifests.
func (r *replica) run(t *testing.T, f *fixture) {
	t.Helper()
	host, port, err := net.SplitHostPort(r.address)
	check(t, err)
	args := append([]string{}, f.flags...)
	args = append(args, "--kubeconfig="+f.kubeconfig, "--bind-address="+host, "--secure-port="+port)
	r.process = exec.Command(r.program, args...)
	r.process.Env = append(os.Environ(), "POD_NAME="+r.pod, "POD_NAMESPACE="+system)
	r.log = &servers.Transcript{}
	r.said = append(r.said, r.log)
	r.process.Stderr = r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, r.process.Start())
}

func (r *replica) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	check(t, r.process.Process.Signal(signal))
}

// await blocks until the process has ended, and returns how.
func (r *replica) await(t *testing.T) error {
	t.Helper()
	ended := make(chan error, 1)
	process := r.process
	go func() { ended <- process.Wait() }()
	select {
	case err := <-ended:
		r.process = nil
		return err
	case <-time.After(patience):
		_ = process.Process.Kill()
		t.Fatalf("%s has not ended within %s", r.pod, patience)
		return nil
	}
}

// awaitReady blocks until the replica would be given requests.
func (r *replica) awaitReady(t *testing.T) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // as the kubelet
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 5 * time.Second}
	eventually.Succeeds(t, patience, r.pod+" is ready", func() error {
		response, err := client.Get("https://" + r.address + "/readyz") //nolint:noctx // it has a time-out
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", response.Status)
		}
		return nil
	})
}
