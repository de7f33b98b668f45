package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
)

// Build builds celery-hpa as it is shipped, into a file of that name. It begins with what was built last: a program that is up to date is not linked
// anew, which takes many seconds.
func Build(ctx context.Context, program string) error {
	cache, err := binaries.CacheDir()
	if err != nil {
		return err
	}
	kept := filepath.Join(cache, "playground", "celery-hpa")
	if err := replace(program, kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", program,
		"github.com/celery-hpa/celery-hpa/cmd/celery-hpa")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return err
	}
	return replace(kept, program)
}

// replace copies a program. Others, who do the same at the same time, see all of the
// old one or all of the new one.
func replace(to, from string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.CreateTemp(filepath.Dir(to), ".copy-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(target.Name()))
		}
	}()
	_, err = io.Copy(target, source)
	if err := errors.Join(err, target.Chmod(0o755), target.Close()); err != nil {
		return err
	}
	return os.Rename(target.Name(), to)
}
