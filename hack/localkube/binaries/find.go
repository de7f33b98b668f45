package binaries

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// AssetsEnv names the environment variable that controller-runtime's test
// environment uses for a folder with the programs of a control plane.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// errIncomplete says that a folder does not hold all four programs.
var errIncomplete = errors.New("not all of etcd, kube-apiserver, kube-controller-manager and kubectl are here")

// Check returns nil if dir holds all four programs, each recent enough to be
// used, and otherwise the first reason against it. It runs each program once to
// ask for its version.
func Check(ctx context.Context, dir string) error {
	for _, program := range programs() {
		if !isExecutable(filepath.Join(dir, program.name)) {
			return fmt.Errorf("%s: %s is missing: %w", dir, program.name, errIncomplete)
		}
	}
	for _, program := range programs() {
		if err := program.check(ctx, filepath.Join(dir, program.name)); err != nil {
			return err
		}
	}
	return nil
}

// find returns the folder of the machine's own programs: the one that
// KUBEBUILDER_ASSETS names, else the first of PATH that serves. All four must lie
// in one folder: a mixture of versions is nobody's intention. It returns "" where
// there is none, and tells note why a folder that was meant to serve does not.
func find(ctx context.Context, note func(format string, args ...any)) string {
	if assets := os.Getenv(AssetsEnv); assets != "" {
		err := Check(ctx, assets)
		if err == nil {
			return assets
		}
		note("%s does not serve: %v", AssetsEnv, err)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		switch err := Check(ctx, dir); {
		case err == nil:
			return dir
		case !errors.Is(err, errIncomplete):
			note("the control plane in PATH does not serve: %v", err)
		}
	}
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// sourceFolder is where the checkout keeps the program's module.
const sourceFolder = "hack/localkube/kube"

// findSource returns the folder of the program's source in the checkout that dir
// lies in.
func findSource(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		source := filepath.Join(at, sourceFolder)
		_, err := os.Stat(filepath.Join(source, "go.mod"))
		if err == nil {
			return source, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for %s: %w", sourceFolder, err)
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no %s in %s or above: run this inside a checkout of celery-hpa, or set %s", sourceFolder, dir, AssetsEnv)
		}
	}
}
