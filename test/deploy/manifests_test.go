package deploy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
)

const (
	install     = "../../deploy/manifests/install.yaml"
	examples    = "../../deploy/examples"
	apiService  = "v1beta1.external.metrics.k8s.io"
	servingName = "celery-hpa.celery-hpa.svc"
)

// patience bounds every wait of these tests; none depends on its length.
const patience = 60 * time.Second

// cluster is a control plane.
type cluster struct{ *localkube.Cluster }

func TestManifests(t *testing.T) {
	c := start(t)
	c.kubectl(t, "apply", "--validate=strict", "-f", install)
	t.Run("the examples go with them", func(t *testing.T) {
		c.kubectl(t, "apply", "--validate=strict", "-f", examples)
	})
	t.Run("the strictest pod security admits the pods", c.admitsPods)
	t.Run("celery-hpa may read CeleryBrokers, and say how they do", c.knowsBrokers)
	t.Run("applying them again keeps what celery-hpa has written", c.keepsWrites)
	t.Run("deleting them leaves nothing", func(t *testing.T) {
		c.kubectl(t, "delete", "--ignore-not-found", "-f", install, "--timeout="+patience.String())
		c.expectLeft(t)
	})
}

func start(t *testing.T) cluster {
	t.Helper()
	c, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster{c}
}

func (c cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func (c cluster) admitsPods(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := c.Kubectl(ctx, "wait", "--namespace=celery-hpa", "--timeout=-1s",
		"--for=jsonpath={.status.replicas}=2", "deployment/celery-hpa")
	if err != nil {
		t.Fatalf("%v\n%s", err, c.kubectl(t, "get", "events", "--namespace=celery-hpa"))
	}
}

func (c cluster) knowsBrokers(t *testing.T) {
	for _, tt := range []struct {
		verb, resource string
		want           bool
	}{
		{"get", "celerybrokers", false},
		{"list", "celerybrokers", true},
		{"watch", "celerybrokers", true},
		{"patch", "celerybrokers/status", true},
		{"patch", "celerybrokers", false},
		{"delete", "celerybrokers", false},
	} {
		if got := c.may(t, "default", tt.verb, tt.resource); got != tt.want {
			t.Errorf("%s %s: %t, want %t", tt.verb, tt.resource, got, tt.want)
		}
	}
}

// may asks the API server whether celery-hpa may do something to a resource of a
// namespace, or to a subresource (RESOURCE/SUBRESOURCE).
func (c cluster) may(t *testing.T, namespace, verb, resource string) bool {
	t.Helper()
	resource, subresource, _ := strings.Cut(resource, "/")
	out, err := c.Kubectl(t.Context(), "auth", "can-i", "--as=system:serviceaccount:celery-hpa:celery-hpa",
		verb, resource, "--subresource="+subresource, "--namespace="+namespace) // which fails where the answer is no
	answer := strings.TrimSpace(string(out))
	if answer != "yes" && answer != "no" {
		t.Fatalf("%q, %v", answer, err)
	}
	return answer == "yes"
}

func (c cluster) keepsWrites(t *testing.T) {
	p := c.runProgram(t)
	want := c.written(t)
	for _, apply := range [][]string{{"apply"}, {"apply", "--server-side"}, {"apply", "--server-side", "--force-conflicts"}} {
		c.kubectl(t, append(apply, "-f", install)...)
		c.expectWritten(t, want)
	}
	p.stop(t)
}

func TestBrokersOfExamplesLoad(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "broker-with-password.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var documents corev1.ConfigMap
	find(t, string(text), "ConfigMap", &documents)
	project(t, folder, documents.Data)
	var urls corev1.Secret
	find(t, string(text), "Secret", &urls)
	project(t, folder, urls.StringData)
	if brokers, err := brokersfile.Load(filepath.Join(folder, "brokers.yaml")); err != nil || len(brokers) != 1 {
		t.Errorf("loaded %d brokers, %v; want one", len(brokers), err)
	}
}

// project writes what the kubelet would write into the pod's volume.
func project(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
