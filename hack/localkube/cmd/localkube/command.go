package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "localkube",
		Short: "A Kubernetes control plane on loopback, with a node whose pods are processes",
		Long: `localkube runs etcd, kube-apiserver and kube-controller-manager on free ports of
127.0.0.1, with a node that runs the command of each pod's container as a process
of this machine. It needs no root rights, no container runtime and no network but
for the first build.

The programs are those of $KUBEBUILDER_ASSETS or of one folder of $PATH where all
four are there and recent enough. Otherwise they are built once from Go modules
and kept in $CELERY_HPA_CACHE (or the user's cache folder).`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newBuildCommand(), newUpCommand())
	return root
}

func newBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the programs, if need be, and print the folder that they are in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := binaries.Ensure(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		},
	}
}

func newUpCommand() *cobra.Command {
	var options localkube.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a control plane and its node until Ctrl-C, then remove everything",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Output = cmd.ErrOrStderr()
			return up(cmd.Context(), cmd.OutOrStdout(), options)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Dir, "dir", "", "existing folder for data, credentials and logs, which is kept (default: a temporary one)")
	flags.DurationVar(&options.HPASyncPeriod, "hpa-sync-period", 0, "how often the HPA looks at its metrics (default: 15s, as Kubernetes)")
	flags.DurationVar(&options.DownscaleStabilization, "downscale-stabilization", 0, "for how long the HPA waits before it scales down (default: 5m0s, as Kubernetes)")
	return cmd
}

// up runs until ctx ends, which is its orderly end, or until something fails.
func up(ctx context.Context, out io.Writer, options localkube.Options) (err error) {
	cluster, err := localkube.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	node, err := procnode.New(procnode.Options{
		Config: cluster.RESTConfig(),
		LogDir: filepath.Join(cluster.Dir(), "pods"),
		Output: options.Output,
		OnEvent: func(event procnode.Event) {
			fmt.Fprintln(options.Output, describe(event))
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s\nexport PATH=%s:$PATH\n", cluster.Kubeconfig(), cluster.BinDir())
	fmt.Fprintf(options.Output, "logs are in %s; Ctrl-C ends it\n", cluster.Dir())
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return node.Run(ctx) })
	running.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-cluster.Done():
			return cluster.Err()
		}
	})
	return running.Wait()
}

func describe(event procnode.Event) string {
	text := fmt.Sprintf("%s %s/%s %s pid %d", event.Time.Format(time.TimeOnly), event.Namespace, event.Pod, event.Kind, event.PID)
	if event.Kind == procnode.Exit {
		text += fmt.Sprintf(" code %d", event.ExitCode)
	}
	return text
}
