// Command step runs a command and shows for how long, from its first second:
//
//	step TITLE COMMAND [ARGUMENT...]
//
// What the command prints is shown only if it fails; its exit code is step's.
// It imports nothing that takes long to compile.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/celery-hpa/celery-hpa/hack/progress"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: step TITLE COMMAND [ARGUMENT...]")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	step := progress.New(os.Stdout).Start(args[0])
	out, err := exec.CommandContext(ctx, args[1], args[2:]...).CombinedOutput()
	step.Done(err)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s%s: %v\n", out, args[0], err)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode()
	}
	return 1
}
