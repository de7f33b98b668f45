package binaries

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/progress"
)

// CacheEnv names the environment variable that moves the cache folder.
const CacheEnv = "CELERY_HPA_CACHE"

// lockInterval is how often a build that another process is doing is looked at.
const lockInterval = 200 * time.Millisecond

// Ensure returns a folder that holds etcd, kube-apiserver, kube-controller-manager
// and kubectl: that of KUBEBUILDER_ASSETS or one of PATH where all four are there
// and recent enough, else <cache>/localkube/<version>-<digest>, which it fills by
// building them if it is not there. That takes minutes, 4 GB of memory and 4 GB
// of disk; progress goes to out, which may be nil. Two calls at once, of two
// processes as well, build once. It must run inside a checkout of celery-hpa.
func Ensure(ctx context.Context, out io.Writer) (string, error) {
	printer := progress.New(out)
	if dir := find(ctx, printer.Printf); dir != "" {
		return dir, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("look for the control plane's source: %w", err)
	}
	folder, err := findSource(here)
	if err != nil {
		return "", err
	}
	src, err := readSource(folder)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	return ensureBuilt(ctx, src, filepath.Join(cache, "localkube"), printer)
}

// CacheDir is the folder in which celery-hpa's tools keep what is costly to make:
// $CELERY_HPA_CACHE, else celery-hpa in the user's cache folder. It need not
// exist.
func CacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder (or set %s): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "celery-hpa"), nil
}

func ensureBuilt(ctx context.Context, src source, cache string, printer *progress.Printer) (string, error) {
	result := filepath.Join(cache, src.key)
	if isComplete(result) {
		return result, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	unlock, err := lock(ctx, result+".lock", printer)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isComplete(result) { // by the one who held the lock
		return result, nil
	}
	return result, build(ctx, src, result, printer)
}

// isComplete needs no look into the folder: it appears whole, by renaming.
func isComplete(result string) bool {
	_, err := os.Stat(result)
	return err == nil
}

// lock waits until this process holds the lock file. The kernel releases it when
// the holder dies, so that nothing can be locked for ever.
func lock(ctx context.Context, path string, printer *progress.Printer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build's lock: %w", err)
	}
	unlock = func() { _ = file.Close() }
	if tryLock(file) == nil {
		return unlock, nil
	}
	step := printer.Start("waiting for another process to build the control plane")
	defer func() { step.Done(err) }()
	for {
		err := tryLock(file)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			unlock()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			unlock()
			return nil, fmt.Errorf("wait for another process to build the control plane: %w", context.Cause(ctx))
		case <-time.After(lockInterval):
		}
	}
}

func tryLock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// build fills a folder beside result and renames it, so that result is there
// whole or not at all.
func build(ctx context.Context, src source, result string, printer *progress.Printer) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(result), ".building-")
	if err != nil {
		return fmt.Errorf("make a folder to build in: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("open the build folder to readers: %w", err)
	}
	step := printer.Start(fmt.Sprintf("building the local control plane, Kubernetes v%s (once, about 5 minutes on 2 cores)", src.version))
	err = compile(ctx, src, filepath.Join(work, "kube"), step)
	step.Done(err)
	if err != nil {
		return err
	}
	for _, program := range programs() {
		if err := os.Symlink("kube", filepath.Join(work, program.name)); err != nil {
			return fmt.Errorf("name the control plane's programs: %w", err)
		}
	}
	if err := os.Rename(work, result); err != nil {
		return fmt.Errorf("put the control plane in place: %w", err)
	}
	return nil
}

// The compiler spends a sixth of its time on collecting garbage (measured over the
// packages of client-go: 65 s with GOGC=100, 55 s with 400, on 2 cores). It gets
// more memory instead, up to what the largest package takes anyway.
const (
	compilerGC     = "400"
	compilerMemory = "3GiB"
)

func compile(ctx context.Context, src source, output string, step *progress.Step) error {
	// One process more than there are cores, for while one waits for the disk.
	args := append([]string{"build", "-v", "-p", strconv.Itoa(runtime.NumCPU() + 1), "-o", output}, buildFlags(src.version)...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = src.dir
	// Whatever the caller is built with must not change what is built here.
	cmd.Env = append(os.Environ(), "GOGC="+compilerGC, "GOMEMLIMIT="+compilerMemory, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	messages, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("build the control plane: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build the control plane: %w; install Go and put it in PATH, or set %s to a folder with the four programs", err, AssetsEnv)
	}
	complaints := follow(messages, step)
	if err := cmd.Wait(); err != nil {
		return buildError(ctx, src, err, complaints)
	}
	return nil
}

func buildError(ctx context.Context, src source, err error, complaints []string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build the control plane: %w", context.Cause(ctx))
	}
	return fmt.Errorf("build the control plane in %s: %w\n%s\n"+
		"what to do: see that Go modules can be downloaded (go env GOPROXY) and that 4 GB of memory and 4 GB of disk are free, then run it again; "+
		"or set %s to a folder with etcd >= 3.6 and kube-apiserver, kube-controller-manager and kubectl >= 1.37",
		src.dir, err, strings.Join(complaints, "\n"), AssetsEnv)
}

// follow reads what the go command says until it ends, turns it into progress,
// and returns the last lines that are neither a package nor a download.
func follow(messages io.Reader, step *progress.Step) []string {
	const keep = 15
	var complaints []string
	packages := 0
	lines := bufio.NewScanner(messages)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			step.Detail("%s", strings.TrimPrefix(line, "go: "))
		case strings.ContainsAny(line, " :#"):
			complaints = append(complaints, line)
			complaints = complaints[max(0, len(complaints)-keep):]
		default: // with -v, each package is named when its compilation begins
			packages++
			step.Detail("%d packages, now %s", packages, line)
		}
	}
	// A line too long for the scanner must not leave the go command blocked.
	_, _ = io.Copy(io.Discard, messages)
	return complaints
}
