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

// gcPercent has the heap collected when it has grown by this share of what was in use,
// where Go's default is 100. With a thousand targets asleep on RabbitMQ the program takes
// some 100 MiB in place of 130, for half a percent of a core. GOGC goes before it.
const gcPercent = 60

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
