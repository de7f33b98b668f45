//go:build linux

package cluster_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/realcluster"
	"github.com/celery-hpa/celery-hpa/hack/realcluster/enclosure"
)

const (
	// patience bounds every wait for a state. Only a failing test waits that long.
	patience = 3 * time.Minute

	repository = "../.."
	system     = "celery-hpa"
	space      = "workers"

	// What testdata/workers.yaml says.
	brokerFolder  = "/var/broker"
	gracePeriod   = 20 * time.Second // of workers
	idleWindow    = 5 * time.Second  // of the HPA
	stabilization = 12 * time.Second // of the HPA
)

// askedFor names the variable with which "make test-cluster" asks for this test.
const askedFor = "CLUSTER"

func TestMain(m *testing.M) {
	if os.Getenv(askedFor) == "" {
		os.Exit(m.Run())
	}
	os.Exit(enclosure.Run(m.Run))
}

type cluster struct {
	*realcluster.Cluster
	helmPath string
	ends     ends
	// sent are the ids of the tasks that were sent since begin.
	sent []string
}

func start(t *testing.T) *cluster {
	t.Helper()
	if enclosure.Dir() == "" {
		t.Skip(`needs root on Linux, and parts that are built first: run "make test-cluster"`)
	}
	kube, err := realcluster.Start(t.Context(), realcluster.Options{
		Dir: enclosure.Dir(), Output: os.Stdout, HPASyncPeriod: 2 * time.Second,
	})
	check(t, err)
	c := &cluster{Cluster: kube}
	t.Cleanup(func() {
		if t.Failed() {
			c.tell(t)
		}
		if err := kube.Stop(); err != nil {
			t.Error(err)
		}
	})
	out, err := output(exec.Command("go", "tool", "-modfile=hack/charttools/go.mod", "-n", "helm.sh/helm/v4/cmd/helm"))
	check(t, err)
	c.helmPath = strings.TrimSpace(out)
	c.watchEnds(t)
	return c
}

// tell tells what somebody wants to know whose test has failed: the folder is removed.
func (c *cluster) tell(t *testing.T) {
	for _, args := range []string{
		"get pods,deployments,hpa,celerybrokers --all-namespaces --output=wide",
		"get events --all-namespaces --sort-by=.lastTimestamp",
		"describe pods --namespace=celery-hpa",
		"logs --namespace=celery-hpa --selector=app.kubernetes.io/name=celery-hpa --tail=50 --prefix",
		"logs --namespace=workers --selector=app=worker --tail=30 --prefix",
	} {
		out, err := output(exec.Command(filepath.Join(c.BinDir(), "kubectl"), append(strings.Fields(args), "--kubeconfig="+c.Kubeconfig())...))
		t.Logf("kubectl %s\n%s%v", args, out, err)
	}
	for _, name := range []string{"containerd", "kubelet", "kube-proxy"} {
		out, err := output(exec.Command("tail", "-n", "40", filepath.Join(c.Dir(), name+".log")))
		t.Logf("%s\n%s%v", name, out, err)
	}
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	check(t, err)
	return strings.TrimSpace(string(out))
}

// helm runs Helm at the top of the repository, without the user's settings.
func (c *cluster) helm(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.helmPath, append(args, "--namespace="+system)...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "KUBECONFIG="+c.Kubeconfig())
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+kind+"_HOME="+filepath.Join(home, strings.ToLower(kind)))
	}
	out, err := output(cmd)
	check(t, err)
	return out
}

// output is what a command prints to its standard output, run at the top of the
// repository; an error holds its standard error.
func output(cmd *exec.Cmd) (string, error) {
	var complaint bytes.Buffer
	cmd.Dir, cmd.Stderr = repository, &complaint
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
