package certificates_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// replicaVariable makes the test's program a replica, and says which.
const replicaVariable = "CELERY_HPA_TEST_REPLICA"

// replicaOptions are those of the program that no flag gives, too.
type replicaOptions struct {
	Args                  []string // flags of the API server
	BrokersFile, Identity string
	Certificates          certificates.Options
}

func TestMain(m *testing.M) {
	if text := os.Getenv(replicaVariable); text != "" {
		if err := runReplica(text); err != nil {
			fmt.Fprintln(os.Stderr, "replica:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// runReplica is a celery-hpa until its standard input ends, which it does with the test.
func runReplica(text string) error {
	var options replicaOptions
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		return err
	}
	redis.DiscardClientLog()
	server := apiserver.NewOptions()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	server.AddFlags(flags)
	server.AddLibraryFlags(flags)
	if err := flags.Parse(options.Args); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	a, err := app.New(ctx, app.Options{
		BrokersFile: options.BrokersFile, Server: server, Namespace: namespace, Identity: options.Identity,
		Certificates: options.Certificates, Version: "test",
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// replica is a process of celery-hpa.
type replica struct {
	name    string
	log     *servers.Transcript
	process *exec.Cmd
	stdin   io.Closer
}

// startReplica starts one that runs until it is stopped or the test ends.
func (f *fixture) startReplica(t *testing.T, name string, options certificates.Options) *replica {
	t.Helper()
	text, err := json.Marshal(replicaOptions{
		Args: []string{
			"--kubeconfig=" + f.kubeconfig, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", f.port),
			"--permit-port-sharing", // the kernel gives each connection to one of those that listen
		},
		BrokersFile: filepath.Join(f.folder, "brokers.yaml"), Identity: name, Certificates: options,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{name: name, log: &servers.Transcript{}, process: exec.Command(os.Args[0])}
	r.process.Env = append(os.Environ(), replicaVariable+"="+string(text))
	r.process.Stderr = r.log
	if r.stdin, err = r.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.process.Start(); err != nil {
		t.Fatal(err)
	}
	f.logs = append(f.logs, r.log)
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the process in good order. It may be called again.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if r.process == nil {
		return
	}
	_ = r.stdin.Close() // it is closed already where the process has ended
	if err := r.process.Wait(); err != nil {
		t.Errorf("replica %s: %v", r.name, err)
	}
	r.process = nil
	if t.Failed() {
		t.Logf("replica %s:\n%s", r.name, r.log)
	}
}
