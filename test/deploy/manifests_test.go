package deploy_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
	"github.com/celery-hpa/celery-hpa/pkg/cli"
)

const (
	manifests   = "../../deploy/manifests"
	examples    = "../../deploy/examples"
	apiService  = "v1beta1.external.metrics.k8s.io"
	servingName = "celery-hpa.celery-hpa.svc"
	// serviceAccount is how the API server knows celery-hpa.
	serviceAccount = "system:serviceaccount:celery-hpa:celery-hpa"
)

// patience bounds every wait of these tests; none depends on its length.
const patience = 60 * time.Second

// cluster is a control plane with the manifests applied.
type cluster struct{ *localkube.Cluster }

func TestManifests(t *testing.T) {
	c := start(t)
	c.kubectl(t, "apply", "--validate=strict", "-f", manifests)
	t.Run("the examples go with them", func(t *testing.T) {
		c.kubectl(t, "apply", "--validate=strict", "-f", examples)
	})
	t.Run("the strictest pod security admits the pods", c.admitsPods)
	t.Run("celery-hpa makes a certificate that is trusted", c.issuesCertificate)
	t.Run("applying them again keeps that", c.keepsTrust)
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

func (c cluster) issuesCertificate(t *testing.T) {
	c.keepCertificate(t)
	c.verify(t, c.servingCert(t))
}

func (c cluster) keepsTrust(t *testing.T) {
	c.kubectl(t, "apply", "-f", manifests)
	c.verify(t, c.servingCert(t))
}

// keepCertificate does what celery-hpa does that leads, with its rights and the Secret of
// its arguments.
func (c cluster) keepCertificate(t *testing.T) {
	t.Helper()
	config, err := c.ConfigFor(serviceAccount, "system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	if err != nil {
		t.Fatal(err)
	}
	options := certificates.DefaultOptions()
	options.Namespace, options.Secret = "celery-hpa", "celery-hpa-serving-cert"
	if !slices.Contains(arguments(t), "--serving-secret="+options.Secret) {
		t.Fatalf("the arguments do not name the Secret: %q", arguments(t))
	}
	keeper, err := certificates.NewKeeper(config, options, func() bool { return true },
		slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !c.trusts(t); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: the certificate is trusted", patience)
		}
		keeper.Prepare(t.Context()) // which has its rights soon after they were applied
	}
}

// trusts tells whether the APIService trusts the authority of the Secret.
func (c cluster) trusts(t *testing.T) bool {
	t.Helper()
	var service struct{ Spec struct{ CABundle string } }
	decode(t, c.kubectl(t, "get", "apiservice", apiService, "--output=yaml"), &service)
	out := c.kubectl(t, "get", "secret", "--namespace=celery-hpa", "celery-hpa-serving-cert", "--ignore-not-found", "--output=jsonpath={.data.ca\\.crt}")
	return out != "" && out == service.Spec.CABundle
}

// servingCert is the certificate that the pods would show.
func (c cluster) servingCert(t *testing.T) *x509.Certificate {
	t.Helper()
	var secret corev1.Secret
	decode(t, c.kubectl(t, "get", "secret", "--namespace=celery-hpa", "celery-hpa-serving-cert", "--output=yaml"), &secret)
	block, _ := pem.Decode(secret.Data[corev1.TLSCertKey])
	if block == nil {
		t.Fatal("the Secret holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// verify checks the certificate as the API server does.
func (c cluster) verify(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	var service struct{ Spec struct{ CABundle []byte } }
	decode(t, c.kubectl(t, "get", "apiservice", apiService, "--output=yaml"), &service)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(service.Spec.CABundle) {
		t.Fatal("the APIService holds no certificate to trust")
	}
	if _, err := cert.Verify(x509.VerifyOptions{DNSName: servingName, Roots: roots}); err != nil {
		t.Error(err)
	}
}

func TestManifestsGiveArgumentsThatServeKnows(t *testing.T) {
	args := arguments(t)
	serve, flags, err := cli.New("test").Find(args)
	if err != nil || serve.Name() != "serve" {
		t.Fatalf("%q runs %q, %v; want serve", args, serve.Name(), err)
	}
	if err := serve.ParseFlags(flags); err != nil {
		t.Error(err)
	}
}

// arguments are those of the pods.
func arguments(t *testing.T) []string {
	t.Helper()
	var deployment appsv1.Deployment
	find(t, filepath.Join(manifests, "30-deployment.yaml"), "Deployment", &deployment)
	return deployment.Spec.Template.Spec.Containers[0].Args
}

func TestBrokersOfManifestsAndExamplesLoad(t *testing.T) {
	for _, path := range []string{
		filepath.Join(manifests, "20-brokers.yaml"),
		filepath.Join(examples, "broker-with-password.yaml"),
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			folder := t.TempDir()
			var documents corev1.ConfigMap
			find(t, path, "ConfigMap", &documents)
			project(t, folder, documents.Data)
			var urls corev1.Secret
			find(t, path, "Secret", &urls)
			project(t, folder, urls.StringData)
			if brokers, err := brokersfile.Load(filepath.Join(folder, "brokers.yaml")); err != nil || len(brokers) != 1 {
				t.Errorf("loaded %d brokers, %v; want one", len(brokers), err)
			}
		})
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

// find decodes the document of that kind, if the file has one.
func find(t *testing.T, path, kind string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		if bytes.Contains(document, []byte("\nkind: "+kind+"\n")) {
			decode(t, string(document), into)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(strings.TrimSpace(text)), into); err != nil {
		t.Fatal(err)
	}
}
