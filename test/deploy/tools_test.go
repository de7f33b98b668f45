package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tools that the chart is tested with, as hack/charttools pins them.
const (
	helm4Tool       = "helm.sh/helm/v4/cmd/helm"
	helm3Tool       = "helm.sh/helm/v3/cmd/helm"
	kubeconformTool = "github.com/yannh/kubeconform/cmd/kubeconform"
)

const (
	repository = "../.."
	chart      = "deploy/helm/celery-hpa"
	namespace  = "celery-hpa"
	release    = "celery-hpa"
)

// tool builds a tool, if it was not built yet, and returns its path.
func tool(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=hack/charttools/go.mod", "-n", name)
	cmd.Dir = repository
	out, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// output is what a command prints to its standard output; an error holds its standard
// error.
func output(cmd *exec.Cmd) (string, error) {
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}

// helm is one version of Helm, with neither the user's settings nor his plugins.
type helm struct {
	path string
	env  []string
}

func newHelm(t *testing.T, name string) helm {
	t.Helper()
	home := t.TempDir()
	env := append(os.Environ(), "HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		env = append(env, "HELM_"+kind+"_HOME="+filepath.Join(home, strings.ToLower(kind)))
	}
	return helm{tool(t, name), env}
}

// to has Helm speak to a cluster.
func (h helm) to(c cluster) helm {
	return helm{h.path, append(h.env, "KUBECONFIG="+c.Kubeconfig())}
}

// try runs Helm at the top of the repository.
func (h helm) try(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.path, append(args, "--namespace", namespace)...)
	cmd.Dir, cmd.Env = repository, h.env
	return output(cmd)
}

func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.try(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
