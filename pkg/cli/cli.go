package cli

import (
	"fmt"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"
)

// New returns the celery-hpa command of the given version. It prints to the
// command's own output and error streams and never ends the process.
func New(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "celery-hpa",
		Short: "Autoscale Celery workers with the HPA that Kubernetes already has",
		Long: "celery-hpa reads the queues of Celery's brokers and serves their backlog and\n" +
			"in-flight counts as Kubernetes external metrics, so that the native HPA can\n" +
			"scale the workers.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newServe(version), newVersion(version))
	return root
}

func newVersion(version string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "celery-hpa %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// logFormat is how the log is written.
type logFormat string

const (
	logText logFormat = "text"
	logJSON logFormat = "json"
)

// UnmarshalText implements encoding.TextUnmarshaler, for a flag.
func (f *logFormat) UnmarshalText(text []byte) error {
	switch given := logFormat(text); given {
	case logText, logJSON:
		*f = given
		return nil
	}
	return fmt.Errorf("unknown format %q: known are %s and %s", text, logText, logJSON)
}

// MarshalText implements encoding.TextMarshaler, for a flag's default.
func (f logFormat) MarshalText() ([]byte, error) { return []byte(f), nil }

func newLogger(cmd *cobra.Command, level slog.Level, format logFormat) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == logJSON {
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), options))
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), options))
}
