package certificates

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// errLeft says that there is nobody who is to trust us: the object does not exist, or is
// about somebody else. That is nobody's fault.
var errLeft = errors.New("left alone")

// bundle is an object with caBundles of ours.
type bundle struct {
	client         dynamic.ResourceInterface
	kind, resource string
	name           string
	// set writes the authorities, in base64, wherever the object names our Service.
	set func(object map[string]any, namespace, trusted string) (changed bool, err error)

	namespace string // of our Service
}

func newBundles(objects dynamic.Interface, namespace string) []*bundle {
	services := schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	webhooks := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	return []*bundle{
		{
			client: objects.Resource(services), kind: "APIService", resource: services.GroupResource().String(),
			name: "v1beta1.external.metrics.k8s.io",
			set:  setService, namespace: namespace,
		},
		{
			client: objects.Resource(webhooks), kind: "ValidatingWebhookConfiguration", resource: webhooks.GroupResource().String(),
			name: "celery-hpa",
			set:  setWebhooks, namespace: namespace,
		},
	}
}

func (b *bundle) String() string { return b.kind + " " + b.name }

// keep compares the caBundles with the authorities, and writes them if they differ. The
// error is errLeft where there is none of ours.
func (b *bundle) keep(ctx context.Context, trusted []byte) (wrote bool, err error) {
	for range attempts {
		if wrote, err = b.compareAndUpdate(ctx, base64.StdEncoding.EncodeToString(trusted)); !apierrors.IsConflict(err) {
			break
		}
	}
	return wrote, err
}

// compareAndUpdate sends the object's resourceVersion along, so that nobody else's change
// is undone.
func (b *bundle) compareAndUpdate(ctx context.Context, trusted string) (wrote bool, err error) {
	object, err := b.client.Get(ctx, b.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, fmt.Errorf("%w: there is no %s; see docs/install.md", errLeft, b)
	}
	if err != nil {
		return false, failure("get", b.kind, b.resource, b.name, err)
	}
	changed, err := b.set(object.Object, b.namespace, trusted)
	if err != nil {
		return false, fmt.Errorf("%s: %w", b, err)
	}
	if !changed {
		return false, nil
	}
	if _, err := b.client.Update(ctx, object, metav1.UpdateOptions{FieldManager: fieldManager}); err != nil {
		return false, failure("update", b.kind, b.resource, b.name, err)
	}
	return true, nil
}

// setService writes the caBundle of an APIService.
func setService(object map[string]any, namespace, trusted string) (bool, error) {
	spec, _, err := unstructured.NestedMap(object, "spec")
	if err != nil {
		return false, err
	}
	if !isOurs(spec, namespace) {
		return false, fmt.Errorf("%w: its Service is not %s/%s", errLeft, namespace, service)
	}
	if insecure, _, _ := unstructured.NestedBool(spec, "insecureSkipTLSVerify"); insecure {
		return false, fmt.Errorf("%w: it has insecureSkipTLSVerify, and so trusts everybody", errLeft)
	}
	if spec["caBundle"] == trusted {
		return false, nil
	}
	return true, unstructured.SetNestedField(object, trusted, "spec", "caBundle")
}

// setWebhooks writes the caBundle of each webhook that our Service answers. One that is
// reached by a URL is none.
func setWebhooks(object map[string]any, namespace, trusted string) (changed bool, err error) {
	webhooks, _, err := unstructured.NestedSlice(object, "webhooks")
	if err != nil {
		return false, err
	}
	for _, webhook := range webhooks {
		fields, _ := webhook.(map[string]any)
		client, _ := fields["clientConfig"].(map[string]any)
		if isOurs(client, namespace) && client["caBundle"] != trusted {
			client["caBundle"], changed = trusted, true
		}
	}
	if !changed {
		return false, nil
	}
	return true, unstructured.SetNestedSlice(object, webhooks, "webhooks")
}

// isOurs tells whether a field "service" names our Service.
func isOurs(fields map[string]any, namespace string) bool {
	named, _ := fields["service"].(map[string]any)
	return named["namespace"] == namespace && named["name"] == service
}
