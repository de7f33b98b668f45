package localkube_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// patience bounds every wait for a state. Only a failing test waits that long.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClustersLiveSideBySideAndLeaveNothing(t *testing.T) {
	first, second := startTwo(t)
	t.Run("they are two", func(t *testing.T) {
		kubectl(t, first, "create", "namespace", "only-here")
		if _, err := second.Kubectl(t.Context(), "get", "namespace", "only-here"); err == nil || !strings.Contains(err.Error(), "NotFound") {
			t.Errorf("the second cluster answered %v, want NotFound", err)
		}
	})
	t.Run("zero replicas are allowed to an HPA by the feature gate of this one alone", func(t *testing.T) {
		if _, err := applyHPA(t, first); err != nil {
			t.Error(err)
		}
		if _, err := applyHPA(t, second); err == nil || !strings.Contains(err.Error(), "minReplicas") {
			t.Errorf("the second cluster answered %v, want a complaint about minReplicas", err)
		}
	})
	t.Run("users have the rights that RBAC gives them", func(t *testing.T) { checkUsers(t, first) })
	t.Run("the aggregator reaches a server on loopback", func(t *testing.T) { checkAggregation(t, first) })
	t.Run("a component that dies is missed with the end of its log", func(t *testing.T) { checkDeath(t, second) })

	for _, cluster := range []*localkube.Cluster{first, second} {
		_ = cluster.Stop() // checked by startTwo's clean-up
		checkNothingLeft(t, cluster.Dir())
	}
	if first.Err() != nil {
		t.Errorf("after an orderly stop: %v", first.Err())
	}
}

// startTwo starts two clusters at the same moment.
func startTwo(t *testing.T) (first, second *localkube.Cluster) {
	t.Helper()
	type result struct {
		cluster *localkube.Cluster
		err     error
	}
	starting := make(chan result)
	go func() {
		cluster, err := localkube.Start(t.Context(), localkube.Options{
			Output: t.Output(), FeatureGates: map[string]bool{"HPAScaleToZero": false},
		})
		starting <- result{cluster, err}
	}()
	first, err := localkube.Start(t.Context(), localkube.Options{
		Output: t.Output(), HPASyncPeriod: time.Second, DownscaleStabilization: time.Second,
	})
	other := <-starting
	for _, got := range []result{{first, err}, other} {
		if got.err != nil {
			t.Error(got.err)
			continue
		}
		t.Cleanup(func() {
			if err := got.cluster.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if t.Failed() {
		t.FailNow()
	}
	return first, other.cluster
}

func applyHPA(t *testing.T, cluster *localkube.Cluster) ([]byte, error) {
	t.Helper()
	return cluster.KubectlInput(t.Context(), strings.NewReader(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker, namespace: default}
spec:
  minReplicas: 0
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks}, target: {type: AverageValue, averageValue: "2"}}
`), "apply", "-f", "-")
}

func checkUsers(t *testing.T, cluster *localkube.Cluster) {
	const user = "system:serviceaccount:default:reader"
	groups := []string{"system:serviceaccounts", "system:serviceaccounts:default"}
	config, err := cluster.ConfigFor(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list := func() error {
		_, err := clients.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := list(); !apierrors.IsForbidden(err) {
		t.Errorf("before the binding: %v, want Forbidden", err)
	}
	kubectl(t, cluster, "create", "rolebinding", "reader", "-n", "default", "--clusterrole=view", "--serviceaccount=default:reader")
	eventually.Succeeds(t, patience, "the service account may list ConfigMaps", func() error { return list() })

	path, err := cluster.KubeconfigFor(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	if out := kubectl(t, cluster, "--kubeconfig", path, "auth", "whoami", "-o", "name"); !strings.Contains(out, "selfsubjectreview") {
		t.Errorf("kubectl with the user's kubeconfig said %q", out)
	}
}

func checkAggregation(t *testing.T, cluster *localkube.Cluster) {
	cert, key, err := cluster.ServingCert("celery-hpa.celery-hpa.svc")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"kind":"Echo","path":%q,"user":%q}`, r.URL.Path, r.Header.Get("X-Remote-User"))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	for range 2 { // the second time, everything is there already
		if err := cluster.AggregateExternalMetrics(t.Context(), "celery-hpa", "celery-hpa", int32(port), cluster.CABundle()); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.AwaitExternalMetrics(t.Context()); err != nil {
		t.Fatal(err)
	}
	const path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/celery_queue_tasks"
	want := fmt.Sprintf(`{"kind":"Echo","path":%q,"user":"admin"}`, path)
	if out := kubectl(t, cluster, "get", "--raw", path); strings.TrimSpace(out) != want {
		t.Errorf("got %s, want %s", out, want)
	}
}

func checkDeath(t *testing.T, cluster *localkube.Cluster) {
	select {
	case <-cluster.Done():
		t.Fatalf("done before any death: %v", cluster.Err())
	default:
	}
	for pid, command := range processesOf(t, cluster.Dir()) {
		if filepath.Base(command) == "kube-controller-manager" {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-cluster.Done():
	case <-time.After(patience):
		t.Fatalf("the death of kube-controller-manager was not noticed within %s", patience)
	}
	if err := cluster.Err(); err == nil || !strings.Contains(err.Error(), "kube-controller-manager ended with exit code 137") {
		t.Errorf("error %v does not say how it ended", err)
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output(), APIServerArgs: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("error %v does not quote what kube-apiserver said", err)
	}
	checkNothingLeft(t, os.Getenv("TMPDIR"))
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if cluster, err := localkube.Start(ctx, localkube.Options{}); err == nil {
		t.Error("no error", cluster.Stop())
	}
	checkNothingLeft(t, os.Getenv("TMPDIR"))
}

func TestCommandCleansUpHoweverItEnds(t *testing.T) {
	program := filepath.Join(t.TempDir(), "localkube")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/localkube")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			temp := t.TempDir()
			up := exec.CommandContext(t.Context(), program, "up")
			up.Env = append(os.Environ(), "TMPDIR="+temp)
			up.Stderr = t.Output()
			out, err := up.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			text := make([]byte, 4096)
			n, _ := out.Read(text)
			if !strings.HasPrefix(string(text[:n]), "export KUBECONFIG="+temp) {
				t.Errorf("printed %q", text[:n])
			}
			if err := up.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := up.Wait(); (signal == syscall.SIGINT) != (err == nil) {
				t.Errorf("ended with %v", err)
			}
			checkNothingLeft(t, temp)
		})
	}
}

func kubectl(t *testing.T, cluster *localkube.Cluster, args ...string) string {
	t.Helper()
	out, err := cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// checkNothingLeft waits until no process names a folder in its command line, and
// nothing of a cluster is in it: after a SIGKILL others clean up.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	eventually.Succeeds(t, patience, "nothing is left of "+dir, func() error {
		if processes := processesOf(t, dir); len(processes) > 0 {
			return fmt.Errorf("processes %v", processes)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 0 {
			return fmt.Errorf("files %v", files)
		}
		return nil
	})
}

// processesOf returns the programs, by id, whose command lines name dir.
func processesOf(t *testing.T, dir string) map[int]string {
	t.Helper()
	found := map[int]string{}
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), dir) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		found[pid], _, _ = strings.Cut(string(line), "\x00")
	}
	return found
}
