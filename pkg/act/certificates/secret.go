package certificates

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// fieldManager is who the API server says has written.
const fieldManager = "celery-hpa"

// rights is where what celery-hpa may do is written.
const rights = "docs/install.md"

// secret is the Secret in the cluster. No error shows what is in it.
type secret struct {
	client          client.SecretInterface
	namespace, name string
}

func (s secret) String() string { return s.namespace + "/" + s.name }

// get returns nil if there is no Secret.
func (s secret) get(ctx context.Context) (*corev1.Secret, error) {
	found, err := s.client.Get(ctx, s.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, s.failure("get", err)
	}
	return found, nil
}

// put creates the Secret, or updates the one that was found if nobody else has since. It
// leaves what celery-hpa makes no use of.
//
// The type is the one for a certificate and its key, as other tools make it; an API
// server refuses to change it, so that one which is there stays as it is.
func (s secret) put(ctx context.Context, found *corev1.Secret, data map[string][]byte) error {
	if found == nil {
		_, err := s.client.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: s.namespace, Name: s.name,
				Labels: map[string]string{"app.kubernetes.io/name": "celery-hpa"},
			},
			Type: corev1.SecretTypeTLS, Data: data,
		}, metav1.CreateOptions{FieldManager: fieldManager})
		return s.failure("create", err)
	}
	changed := found.DeepCopy()
	if changed.Data == nil {
		changed.Data = map[string][]byte{}
	}
	maps.Copy(changed.Data, data)
	_, err := s.client.Update(ctx, changed, metav1.UpdateOptions{FieldManager: fieldManager})
	return s.failure("update", err)
}

func (s secret) failure(verb string, err error) error {
	if err == nil {
		return nil
	}
	return failure(verb, "Secret", "secrets in namespace "+s.namespace, s.String(), err)
}

// failure says what has failed, and which right to give where that is why.
func failure(verb, kind, resources, name string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s %s %s: the right to %s %s is missing, see %s: %w", verb, kind, name, verb, resources, rights, err)
	}
	return fmt.Errorf("%s %s %s: %w", verb, kind, name, err)
}
