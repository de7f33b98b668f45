package setup_test

import (
	"os/exec"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/setup"
)

func TestPythonRunsCelery(t *testing.T) {
	python, err := setup.Python()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "-c", "import celery, gevent, redis").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", python, err, out)
	}
}

func TestPythonOfTheEnvironmentGoesFirst(t *testing.T) {
	t.Setenv(setup.PythonEnv, "/opt/own/python")
	got, err := setup.Python()
	if err != nil || got != "/opt/own/python" {
		t.Errorf("Python() = %q, %v; want the one of %s", got, err, setup.PythonEnv)
	}
}

func TestPythonSaysWhatToDoWithoutSetUp(t *testing.T) {
	t.Setenv(setup.PythonEnv, "")
	t.Setenv("CELERY_HPA_CACHE", t.TempDir())
	if got, err := setup.Python(); err == nil {
		t.Errorf("Python() = %q without set-up, want an error", got)
	}
}
