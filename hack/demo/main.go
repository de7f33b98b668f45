// Command demo runs celery-hpa's main job for real: a Kubernetes control plane on
// loopback, Redis, real Celery workers, and the native HPA that scales them by
// the metrics of celery-hpa, to zero and back. It lets the workers go to zero, sends
// a burst of tasks, shows what happens until there are none again, and fails unless
// every task has finished and no worker was killed. With BROKER=rabbitmq in its
// environment RabbitMQ takes the place of Redis.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

const (
	burst    = 20
	taskTime = 6 * time.Second
	patience = 5 * time.Minute // for each of the two halves
	// idleWindow stands for celery-hpa's default of 5 min, so that there is something
	// to see.
	idleWindow = 8 * time.Second
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := demo(ctx, os.Stdout)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything has been stopped and removed")
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	return 1
}

// demo starts a playground, runs the burst, and stops it again in any case.
func demo(ctx context.Context, out io.Writer) (err error) {
	started := time.Now()
	p, err := playground.Start(ctx, options(out))
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nEverything runs after %s. While it does, look at it from another terminal:\n  export KUBECONFIG=%s\n  %s/kubectl -n %s get hpa,pods\n\n",
		time.Since(started).Round(time.Second), p.Cluster.Kubeconfig(), p.Cluster.BinDir(), playground.Namespace)
	if err := fallAsleep(ctx, p, out); err != nil {
		return err
	}
	s, err := runBurst(ctx, p, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", s)
	return s.verdict()
}

// options let the HPA look and forget faster than Kubernetes' defaults.
func options(out io.Writer) playground.Options {
	return playground.Options{
		Output: out, Broker: playground.Broker(os.Getenv("BROKER")),
		Workers:       playground.Fleet{ScaleToZero: true, IdleWindow: idleWindow},
		HPASyncPeriod: 2 * time.Second, DownscaleStabilization: 6 * time.Second,
	}
}

// fallAsleep shows how the first worker, which has nothing to do, goes.
func fallAsleep(ctx context.Context, p *playground.Playground, out io.Writer) error {
	fmt.Fprintf(out, "There is one worker, and nothing to do. It goes when that has been so for %s (the default is 5 min).\n\n", idleWindow)
	_, err := watch(ctx, p, newTable(out), isAsleep)
	return err
}

func isAsleep(s playground.Status) bool { return s.Wanted == 0 && s.Ready == 0 }

// runBurst sends the tasks and shows the playground until all have finished and no
// worker is left.
func runBurst(ctx context.Context, p *playground.Playground, out io.Writer) (summary, error) {
	fmt.Fprintf(out, "\nSending %d tasks of %s each to the queue %q of %s: %d at once per worker, and there is none.\n\n",
		burst, taskTime, playground.Queue, p.Broker().Title(), playground.Concurrency)
	s := summary{sent: burst}
	var err error
	if s.at, err = p.Send(ctx, playground.Batch{Tasks: burst, Each: taskTime}); err != nil {
		return s, err
	}
	s.last, err = watch(ctx, p, newTable(out), func(status playground.Status) bool {
		s.see(status, time.Now())
		return status.Finished >= burst && isAsleep(status)
	})
	if err != nil {
		return s, err
	}
	s.history, err = p.History()
	return s, err
}

// watch shows the playground each second until it is as wanted.
func watch(ctx context.Context, p *playground.Playground, shown table, wanted func(playground.Status) bool) (playground.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		status, err := p.Status(ctx)
		if err != nil {
			return status, err
		}
		shown.row(status)
		if wanted(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("no end within %s: %w", patience, ctx.Err())
		case <-ticker.C:
		}
	}
}
