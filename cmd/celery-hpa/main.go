// Command celery-hpa autoscales Celery workers with the HPA that Kubernetes
// already has. See package cli for its commands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/celery-hpa/celery-hpa/pkg/cli"
)

// version is set by the linker.
var version = "dev"

// gcPercent lets the heap grow to three times what is in use before it is
// collected, where Go's default is twice: of a heap of a few megabytes that costs
// ten megabytes under load, and saves a tenth of the CPU time of a read. GOGC
// goes before it.
const gcPercent = 200

func main() { os.Exit(run()) }

func run() int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
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
