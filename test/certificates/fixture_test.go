package certificates_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// patience bounds every wait; none depends on its length.
const patience = 90 * time.Second

const (
	namespace      = "celery-hpa"
	secretName     = "celery-hpa-serving-cert"
	servingName    = "celery-hpa.celery-hpa.svc"
	webhooksName   = "celery-hpa"
	apiServiceName = "v1beta1.external.metrics.k8s.io"
	ourUser        = "system:serviceaccount:celery-hpa:celery-hpa"
	hpaUser        = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
)

// fixture is one control plane for all rules.
type fixture struct {
	cluster    *localkube.Cluster
	admin, hpa kubernetes.Interface
	registry   aggregator.Interface
	kubeconfig string // of celery-hpa, with the rights of the manifests
	folder     string // with the brokers file
	port       int32  // of all replicas
	logs       []*servers.Transcript
}

// usual is what the flags of the manifests give.
func usual() certificates.Options {
	options := certificates.DefaultOptions()
	options.Secret = secretName
	return options
}

// hasty is usual for the impatient: what takes years takes seconds.
func hasty() certificates.Options {
	options := usual()
	options.Lifetime, options.AuthorityLifetime = 15*time.Second, 30*time.Second
	options.Settling, options.Interval = 3*time.Second, 500*time.Millisecond
	return options
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	cluster, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{cluster: cluster, folder: t.TempDir(), port: int32(servers.FreePort(t))}
	must(t, f.connect())
	rights, err := playground.Rights()
	must(t, err)
	f.apply(t, string(rights))
	f.apply(t, workers)
	must(t, cluster.AggregateExternalMetrics(t.Context(), namespace, "celery-hpa", f.port, nil))
	f.register(t)
	f.fillBroker(t)
	return f
}

func (f *fixture) connect() (err error) {
	if f.admin, err = kubernetes.NewForConfig(f.cluster.RESTConfig()); err != nil {
		return err
	}
	if f.registry, err = aggregator.NewForConfig(f.cluster.RESTConfig()); err != nil {
		return err
	}
	config, err := f.cluster.ConfigFor(hpaUser, groups("kube-system")...)
	if err != nil {
		return err
	}
	if f.hpa, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	f.kubeconfig, err = f.cluster.KubeconfigFor(ourUser, groups(namespace)...)
	return err
}

// groups are those of the service accounts of a namespace.
func groups(namespace string) []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace}
}

// register applies the webhooks as they are shipped, but for the port.
func (f *fixture) register(t *testing.T) {
	t.Helper()
	text, err := playground.Webhooks()
	must(t, err)
	var object admissionregistrationv1.ValidatingWebhookConfiguration
	must(t, yaml.UnmarshalStrict(text, &object))
	for i := range object.Webhooks {
		object.Webhooks[i].ClientConfig.Service.Port = new(f.port)
	}
	_, err = f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &object, metav1.CreateOptions{})
	must(t, err)
}

// workers are a Deployment whose HPA asks for zero.
const workers = `
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: demo}
spec:
  replicas: 1
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker, namespace: demo, annotations: {celery-hpa.io/scale-to-zero: "true"}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 2
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: celery}}}, target: {type: AverageValue, averageValue: "1"}}
`

// fillBroker starts a broker with one message, for which the workers must not go.
func (f *fixture) fillBroker(t *testing.T) {
	t.Helper()
	broker := servers.StartRedis(t, servers.RedisOptions{})
	must(t, broker.Admin().RPush(t.Context(), "celery", "{}").Err())
	text := fmt.Sprintf("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {namespace: demo, name: redis}\nspec: {url: {value: %q}, queues: [{name: celery}]}\n", broker.URL(0))
	must(t, os.WriteFile(filepath.Join(f.folder, "brokers.yaml"), []byte(text), 0o600))
}

func (f *fixture) apply(t *testing.T, documents string) {
	t.Helper()
	if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(documents), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// secret is the Secret of now.
func (f *fixture) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	found, err := f.admin.CoreV1().Secrets(namespace).Get(t.Context(), secretName, metav1.GetOptions{})
	must(t, err)
	return found
}

// trusted are the caBundles of now, those of the webhooks after that of the APIService.
func (f *fixture) trusted(ctx context.Context) ([][]byte, error) {
	service, err := f.registry.ApiregistrationV1().APIServices().Get(ctx, apiServiceName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	bundles := [][]byte{service.Spec.CABundle}
	webhooks, err := f.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, webhooksName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, w := range webhooks.Webhooks {
		bundles = append(bundles, w.ClientConfig.CABundle)
	}
	return bundles, nil
}

// check is what the API server does with a serving certificate.
func check(serving *x509.Certificate, trusted []byte, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	_, err := serving.Verify(x509.VerifyOptions{DNSName: servingName, Roots: roots, CurrentTime: at})
	return err
}

// awaitOrder blocks until the Secret holds a certificate of the one authority that it
// holds, which every caBundle trusts, and nobody else.
func (f *fixture) awaitOrder(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, patience, "all is in order", func() error {
		data := f.secret(t).Data
		block, rest := pem.Decode(data["ca.crt"])
		if block == nil || len(rest) > 0 {
			return fmt.Errorf("not one authority: %s", data["ca.crt"])
		}
		block, _ = pem.Decode(data["tls.crt"])
		if block == nil {
			return fmt.Errorf("no certificate: %s", data["tls.crt"])
		}
		serving, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		bundles, err := f.trusted(t.Context())
		if err != nil {
			return err
		}
		for _, bundle := range bundles {
			if !bytes.Equal(bundle, data["ca.crt"]) {
				return fmt.Errorf("a caBundle is %s, want %s", bundle, data["ca.crt"])
			}
		}
		return check(serving, data["ca.crt"], time.Now())
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
