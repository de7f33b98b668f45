// Command celery-hpa autoscales Celery workers with the HPA that Kubernetes
// already has. See package cli for its commands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/celery-hpa/celery-hpa/pkg/cli"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Whoever does not want to wait for the end sends the signal once more.
	context.AfterFunc(ctx, stop)
	if err := cli.New(version).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "celery-hpa:", err)
		return 1
	}
	return 0
}
