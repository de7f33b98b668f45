package playground

import (
	"bytes"
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/hack/playground/internal/documents"
)

const serviceAccount = "celery-hpa" // as in the manifests

// install applies what an administrator would, with processes in place of images.
func (p *Playground) install(ctx context.Context, _ Options) error {
	step := p.progress.Start("installing celery-hpa, a worker and its HPA")
	err := p.apply(ctx)
	step.Done(err)
	return err
}

func (p *Playground) apply(ctx context.Context) error {
	if err := p.credentials(); err != nil {
		return err
	}
	rights, err := Rights()
	if err != nil {
		return err
	}
	if err := p.applyText(ctx, rights); err != nil { // which make the namespace of celery-hpa
		return err
	}
	if err := p.applyTemplate(ctx, manifests); err != nil {
		return err
	}
	if err := p.applyWebhook(ctx); err != nil {
		return err
	}
	return p.Cluster.AggregateExternalMetrics(ctx, SystemNamespace, serviceAccount, int32(p.layout.Port), p.Cluster.CABundle())
}

// applyWebhook applies the webhooks of the manifests, but for where celery-hpa is.
func (p *Playground) applyWebhook(ctx context.Context) error {
	text, err := Webhooks()
	if err != nil {
		return err
	}
	var object admissionregistrationv1.ValidatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		return fmt.Errorf("read the webhooks of the manifests: %w", err)
	}
	for i := range object.Webhooks {
		client := &object.Webhooks[i].ClientConfig
		client.URL, client.Service = new(p.Address()+*client.Service.Path), nil
		client.CABundle = p.Cluster.CABundle()
	}
	_, err = p.clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &object, metav1.CreateOptions{})
	return err
}

func (p *Playground) applyTemplate(ctx context.Context, template string) error {
	text, err := p.layout.render(template)
	if err != nil {
		return err
	}
	return p.applyText(ctx, text)
}

func (p *Playground) applyText(ctx context.Context, text []byte) error {
	_, err := p.Cluster.KubectlInput(ctx, bytes.NewReader(text), "apply", "--validate=strict", "-f", "-")
	return err
}

// Rights returns those documents of the manifests that an administrator applies
// which are about what celery-hpa may do, in their order.
func Rights() ([]byte, error) {
	return documents.Of("Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
}

// Webhooks returns the document of the manifests by which the API server asks
// celery-hpa.
func Webhooks() ([]byte, error) { return documents.Of("ValidatingWebhookConfiguration") }

// credentials gives celery-hpa the rights of its service account and a serving
// certificate.
func (p *Playground) credentials() error {
	kubeconfig, err := p.Cluster.KubeconfigFor("system:serviceaccount:"+SystemNamespace+":"+serviceAccount,
		"system:serviceaccounts", "system:serviceaccounts:"+SystemNamespace)
	if err != nil {
		return err
	}
	p.layout.Kubeconfig = kubeconfig
	cert, key, err := p.Cluster.ServingCert("celery-hpa." + SystemNamespace + ".svc")
	if err != nil {
		return err
	}
	return write(map[string][]byte{p.layout.CertFile: cert, p.layout.KeyFile: key})
}
