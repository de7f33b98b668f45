// Command demo runs celery-hpa's main job for real: a Kubernetes control plane on
// loopback, Redis, real Celery workers, and the native HPA that scales them by
// the metrics of celery-hpa. It sends a burst of tasks, shows what happens until
// the workers are down to one again, and fails unless every task has finished
// and no worker was killed. With BROKER=rabbitmq in its environment RabbitMQ takes
// the place of Redis.
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
	patience = 5 * time.Minute // for the whole of the burst
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
	p, err := playground.Start(ctx, playground.Options{Output: out, Broker: playground.Broker(os.Getenv("BROKER"))})
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nEverything runs after %s. While it does, look at it from another terminal:\n  export KUBECONFIG=%s\n  %s/kubectl -n %s get hpa,pods\n\n",
		time.Since(started).Round(time.Second), p.Cluster.Kubeconfig(), p.Cluster.BinDir(), playground.Namespace)
	s, err := watchBurst(ctx, p, out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", s)
	return s.verdict()
}

// watchBurst sends the tasks and shows the playground until all have finished
// and one worker is left.
func watchBurst(ctx context.Context, p *playground.Playground, out io.Writer) (summary, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	fmt.Fprintf(out, "Sending %d tasks of %s each to the queue %q of %s: %d at once per worker, one worker at first.\n\n",
		burst, taskTime, playground.Queue, p.Broker().Title(), playground.Concurrency)
	if err := p.Publish(ctx, burst, taskTime); err != nil {
		return summary{}, err
	}
	table := newTable(out)
	s := summary{sent: burst, began: time.Now()}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		status, err := p.Status(ctx)
		if err != nil {
			return s, err
		}
		table.row(time.Since(s.began), status)
		s.see(status, time.Now())
		if s.over() {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("the burst did not end within %s: %w", patience, ctx.Err())
		case <-ticker.C:
		}
	}
}
