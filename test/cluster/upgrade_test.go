//go:build linux

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// releaseFlags are those of every install and upgrade: the images are on the node already.
func releaseFlags() []string {
	return []string{
		"--wait", "--timeout=3m", "--set=crds.keep=false",
		"--set=image.repository=localhost/celery-hpa,image.pullPolicy=Never",
	}
}

// expectRelease expects two replicas that are ready, all of the image of that tag, and that
// nothing of another is left.
func (c *cluster) expectRelease(t *testing.T, tag string) {
	t.Helper()
	const fields = `{range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready}{"\n"}{end}`
	image := "localhost/celery-hpa:" + tag + " true"
	eventually.Succeeds(t, patience, "both pods are of "+image, func() error {
		pods := c.kubectl(t, "get", "pods", "--namespace="+system, "--output=jsonpath="+fields)
		if pods != image+"\n"+image {
			return fmt.Errorf("the pods are\n%s\nwant two of %s", pods, image)
		}
		return nil
	})
}

// previousChart is the chart as an earlier version could have been: for another image, with
// a kind that shows less, and with webhooks and an APIService of other settings.
func previousChart(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "celery-hpa")
	check(t, os.CopyFS(folder, os.DirFS(filepath.Join(repository, "deploy/helm/celery-hpa"))))
	for _, change := range []struct{ file, from, to string }{
		{"Chart.yaml", "appVersion: dev", "appVersion: previous"},
		{"Chart.yaml", "\nversion: ", "\nversion: 0.0.0-"},
		{"files/crd.yaml", "    - jsonPath: .status.inFlight\n      name: In-flight\n      type: integer\n", ""},
		{"templates/webhooks.yaml", "timeoutSeconds: 3", "timeoutSeconds: 5"},
		{"templates/apiservice.yaml", "versionPriority: 100", "versionPriority: 99"},
	} {
		path := filepath.Join(folder, change.file)
		text, err := os.ReadFile(path)
		check(t, err)
		if !strings.Contains(string(text), change.from) {
			t.Fatalf("%s has no %q", change.file, change.from)
		}
		check(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(text), change.from, change.to)), 0o600))
	}
	return folder
}

// upgrades upgrades the chart while tasks come, and the HPA's metric is asked for without
// a pause. The chart then makes what Prometheus' operator reads, too.
func (c *cluster) upgrades(t *testing.T) {
	definitions, err := output(exec.CommandContext(t.Context(), "make", "--silent", "operator-kinds"))
	check(t, err)
	_, err = c.KubectlInput(t.Context(), strings.NewReader(definitions), "create", "--filename=-")
	check(t, err)
	c.kubectl(t, "wait", "--for=condition=Established", "customresourcedefinitions", "--all")
	endStream, endQuestions, began := c.stream(t), c.question(t), time.Now()
	c.helm(t, append(releaseFlags(), "upgrade", "celery-hpa", "deploy/helm/celery-hpa", "--set=image.tag=test",
		"--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true")...)
	c.expectRelease(t, "test")
	asked, failures := endQuestions()
	if asked == 0 || len(failures) > 0 {
		t.Errorf("%d of %d questions for the metric have failed during an upgrade: %v", len(failures), asked, failures)
	}
	took, sent := time.Since(began), endStream()
	if sent == 0 {
		t.Error("no task was sent during the upgrade")
	}
	t.Logf("upgraded within %s, in which %d tasks were sent and %d questions answered", took.Round(time.Second), sent, asked)
}

// stream sends short tasks until the function that it returns is called, which returns how
// many.
func (c *cluster) stream(t *testing.T) func() int {
	t.Helper()
	before := len(c.sent)
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		var out []byte
		out, err = c.Kubectl(t.Context(), c.inSender("python3", "-m", "tasks", "stream", "1")...)
		c.sent = append(c.sent, strings.Fields(string(out))...)
	}()
	t.Cleanup(func() { <-ended })
	return func() int {
		c.records(t, "set", "enough", "1")
		<-ended
		check(t, err)
		return len(c.sent) - before
	}
}

// question asks for the HPA's metric, again and again, until the function that it returns
// is called, which returns how often, and what went wrong.
func (c *cluster) question(t *testing.T) func() (asked int, failures []error) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(c.RESTConfig())
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var asked int
	var failures []error
	go func() {
		defer close(ended)
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			_, err := clients.RESTClient().Get().RequestURI(tasksURI).DoRaw(ctx)
			if ctx.Err() != nil {
				return
			}
			asked++
			if err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), whole(err)))
			}
		}
	}()
	end := func() (int, []error) {
		cancel()
		<-ended
		return asked, failures
	}
	t.Cleanup(func() { end() })
	return end
}

// whole adds what the server has said: of an answer that is no object, the error alone does
// not tell.
func whole(err error) error {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || status.Status().Details == nil {
		return err
	}
	for _, cause := range status.Status().Details.Causes {
		err = fmt.Errorf("%w: %s", err, cause.Message)
	}
	return err
}
