package admission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// scaler writes scales under a name of its own.
type scaler struct {
	clients  kubernetes.Interface
	warnings *warnings
}

// warnings collects what the API server warns of.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// take returns what has been warned of since the last time.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := slices.Clone(w.texts)
	w.texts = nil
	return taken
}

func (f *fixture) newScaler(t *testing.T, user string, groups ...string) *scaler {
	t.Helper()
	config, err := f.cluster.ConfigFor(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	s := &scaler{warnings: &warnings{}}
	config.WarningHandlerWithContext = s.warnings
	if s.clients, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scaler) rest() rest.Interface { return s.clients.Discovery().RESTClient() }

// update writes the scale as the HPA controller does, by reading it and writing it
// back.
func (s *scaler) update(t *testing.T, w workload, replicas int32, params ...string) error {
	t.Helper()
	for {
		text, err := s.rest().Get().AbsPath(w.path() + "/scale").DoRaw(t.Context())
		if err != nil {
			return err
		}
		var scale autoscalingv1.Scale
		if err := json.Unmarshal(text, &scale); err != nil {
			return err
		}
		scale.Spec.Replicas = replicas
		if text, err = json.Marshal(scale); err != nil {
			return err
		}
		put := s.rest().Put().AbsPath(w.path()+"/scale").SetHeader("Content-Type", "application/json").Body(text)
		for _, param := range params {
			put = put.Param(param, "All")
		}
		if err := put.Do(t.Context()).Error(); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// patch writes the scale as celery-hpa and "kubectl scale" do.
func (s *scaler) patch(t *testing.T, w workload, replicas int32) error {
	t.Helper()
	return s.rest().Patch(types.MergePatchType).AbsPath(w.path() + "/scale").
		Body(fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, replicas)).Do(t.Context()).Error()
}

// replicas is what the API server holds.
func (f *fixture) replicas(t *testing.T, w workload) int32 {
	t.Helper()
	text, err := f.admin.Discovery().RESTClient().Get().AbsPath(w.path() + "/scale").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var scale autoscalingv1.Scale
	if err := json.Unmarshal(text, &scale); err != nil {
		t.Fatal(err)
	}
	return scale.Spec.Replicas
}

// expect checks what became of a request: whether it was let pass, and what replicas
// there are now.
func (f *fixture) expect(t *testing.T, what string, w workload, err error, replicas int32) {
	t.Helper()
	if err != nil {
		t.Errorf("%s of %s: %v, want it to pass", what, w, err)
	}
	if got := f.replicas(t, w); got != replicas {
		t.Errorf("%s of %s: %d replicas, want %d", what, w, got, replicas)
	}
}

// kubectlWarns runs kubectl and returns what it wrote to its standard error.
func (f *fixture) kubectlWarns(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(f.cluster.BinDir(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+f.cluster.Kubeconfig(), "KUBERC=off", "KUBECACHEDIR="+filepath.Join(f.cluster.Dir(), "kubectl-cache"))
	var warned bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &warned
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("kubectl %q: %v\n%s%s", args, err, out, &warned)
	}
	return warned.String()
}
