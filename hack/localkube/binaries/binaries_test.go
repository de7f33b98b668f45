package binaries_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
)

func TestVersionIsFoundInWhatProgramsSay(t *testing.T) {
	tests := map[string]struct {
		text string
		want binaries.Version
	}{
		"kube-apiserver":    {"Kubernetes v1.37.2\n", binaries.Version{Major: 1, Minor: 37, Patch: 2}},
		"kubectl":           {"Client Version: v1.36.10\nKustomize Version: v5.8.1\n", binaries.Version{Major: 1, Minor: 36, Patch: 10}},
		"etcd":              {"etcd Version: 3.7.0\nGit SHA: Not provided\nGo Version: go1.26.8\n", binaries.Version{Major: 3, Minor: 7}},
		"a distribution's":  {"Kubernetes v1.38.1+k3s1", binaries.Version{Major: 1, Minor: 38, Patch: 1}},
		"a release to come": {"Kubernetes v1.38.0-alpha.3", binaries.Version{Major: 1, Minor: 38}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := binaries.ParseVersion(test.text)
			if err != nil || got != test.want {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
	for _, text := range []string{"", "unknown", "v1.37", "v99999999999999999999.0.0"} {
		if got, err := binaries.ParseVersion(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func FuzzParseVersionReadsBackWhatItPrints(f *testing.F) {
	f.Add("Kubernetes v1.37.2")
	f.Fuzz(func(t *testing.T, text string) {
		version, err := binaries.ParseVersion(text)
		if err != nil {
			return
		}
		again, err := binaries.ParseVersion(version.String())
		if err != nil || again != version {
			t.Errorf("%q: %v became %v, %v", text, version, again, err)
		}
	})
}

func TestVersionsCompareByNumber(t *testing.T) {
	ascending := []binaries.Version{{1, 9, 9}, {1, 10, 0}, {1, 37, 2}, {1, 37, 10}, {3, 6, 0}}
	for i, older := range ascending[:len(ascending)-1] {
		newer := ascending[i+1]
		if older.Compare(newer) >= 0 || newer.Compare(older) <= 0 || older.Compare(older) != 0 {
			t.Errorf("%v and %v are not in order", older, newer)
		}
	}
}

// programs fills a folder with four programs that say these versions.
func programs(t *testing.T, versions map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, version := range versions {
		script := fmt.Sprintf("#!/bin/sh\necho %s\n", version)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func recent() map[string]string {
	return map[string]string{
		"etcd": "etcd Version: 3.6.0", "kube-apiserver": "Kubernetes v1.37.0",
		"kube-controller-manager": "Kubernetes v1.37.0", "kubectl": "Client Version: v1.37.0",
	}
}

func TestFolderServesIfAllFourAreRecentEnough(t *testing.T) {
	tests := map[string]struct {
		change func(map[string]string)
		want   string
	}{
		"all recent":                {func(map[string]string) {}, ""},
		"an old API server":         {func(v map[string]string) { v["kube-apiserver"] = "Kubernetes v1.36.9" }, "older than 1.37.0"},
		"an old controller manager": {func(v map[string]string) { v["kube-controller-manager"] = "Kubernetes v1.9.0" }, "older than 1.37.0"},
		"an old kubectl":            {func(v map[string]string) { v["kubectl"] = "Client Version: v1.20.2" }, "older than 1.37.0"},
		"an old etcd":               {func(v map[string]string) { v["etcd"] = "etcd Version: 3.5.21" }, "older than 3.6.0"},
		"no controller manager":     {func(v map[string]string) { delete(v, "kube-controller-manager") }, "kube-controller-manager is missing"},
		"one that tells no version": {func(v map[string]string) { v["etcd"] = "hello" }, "no version"},
		"one that does not run":     {func(v map[string]string) { v["etcd"] = "oops; exit 1" }, "ask "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			versions := recent()
			test.change(versions)
			err := binaries.Check(t.Context(), programs(t, versions))
			if test.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
		})
	}
}

// checkout makes a small stand-in for a checkout, whose program builds in a
// second, and goes into a folder of it, with an empty cache.
func checkout(t *testing.T, program string) (source string) {
	t.Helper()
	root := t.TempDir()
	source = filepath.Join(root, "hack", "localkube", "kube")
	inside := filepath.Join(root, "pkg", "deep")
	for _, dir := range []string{source, inside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(source, "go.mod"), "module kube\n\ngo 1.26\n\nrequire (\n\tk8s.io/kubernetes v1.37.2\n)\n")
	write(t, filepath.Join(source, "main.go"), program)
	t.Chdir(inside)
	t.Setenv(binaries.CacheEnv, t.TempDir())
	t.Setenv(binaries.AssetsEnv, "")
	return source
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOldKubectlInPathIsNotPicked(t *testing.T) {
	checkout(t, "package main\n\nfunc main() {}\n")
	old := programs(t, map[string]string{"kubectl": "Client Version: v1.20.2"})
	t.Setenv("PATH", old+":"+os.Getenv("PATH"))
	dir, err := binaries.Ensure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, os.Getenv(binaries.CacheEnv)) {
		t.Errorf("got %s, not a folder of the cache", dir)
	}
	for name := range recent() {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestProgramsOfTheMachineAreUsedIfTheyServe(t *testing.T) {
	for _, variable := range []string{binaries.AssetsEnv, "PATH"} {
		t.Run(variable, func(t *testing.T) {
			checkout(t, "this is never built")
			dir := programs(t, recent())
			t.Setenv(variable, dir)
			if got, err := binaries.Ensure(t.Context(), t.Output()); err != nil || got != dir {
				t.Errorf("got %s, %v; want %s", got, err, dir)
			}
		})
	}
}

func TestAssetsThatDoNotServeAreNamedBeforeBuilding(t *testing.T) {
	checkout(t, "package main\n\nfunc main() {}\n")
	versions := recent()
	delete(versions, "kube-controller-manager") // as controller-runtime's own are
	t.Setenv(binaries.AssetsEnv, programs(t, versions))
	var out strings.Builder
	if _, err := binaries.Ensure(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "kube-controller-manager is missing") {
		t.Errorf("output does not say why %s was passed over:\n%s", binaries.AssetsEnv, out.String())
	}
}

func TestCallsAtOnceBuildOnce(t *testing.T) {
	checkout(t, "package main\n\nfunc main() {}\n")
	var outputs [4]strings.Builder
	var dirs [4]string
	var calls sync.WaitGroup
	for i := range outputs {
		calls.Go(func() {
			dir, err := binaries.Ensure(t.Context(), &outputs[i])
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	calls.Wait()
	builds := 0
	for i := range outputs {
		builds += strings.Count(outputs[i].String(), ": done in") - strings.Count(outputs[i].String(), "to build the control plane: done in")
		if dirs[i] != dirs[0] {
			t.Errorf("folders %s and %s differ", dirs[i], dirs[0])
		}
	}
	if builds != 1 {
		t.Errorf("built %d times", builds)
	}
}

func TestChangedSourceIsBuiltAnew(t *testing.T) {
	source := checkout(t, "package main\n\nfunc main() {}\n")
	first, err := binaries.Ensure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(source, "main.go"), "package main\n\nfunc main() { println(1) }\n")
	second, err := binaries.Ensure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Errorf("both are in %s", first)
	}
}

func TestFailedBuildSaysWhyAndWhatToDo(t *testing.T) {
	checkout(t, "package main\n\nfunc main() { undefinedFunction() }\n")
	_, err := binaries.Ensure(t.Context(), t.Output())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"undefinedFunction", "what to do", "GOPROXY", binaries.AssetsEnv} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(os.Getenv(binaries.CacheEnv), "localkube"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if filepath.Ext(entry.Name()) != ".lock" {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
}

func TestOutsideOfACheckoutTheErrorSaysSo(t *testing.T) {
	t.Setenv(binaries.AssetsEnv, "")
	t.Chdir(t.TempDir())
	_, err := binaries.Ensure(t.Context(), t.Output())
	if err == nil || !strings.Contains(err.Error(), "inside a checkout") {
		t.Errorf("error %v does not say what to do", err)
	}
}
