package brokerresource

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

const (
	// readTimeout bounds the reading of one Secret.
	readTimeout = 5 * time.Second
	// readAtOnce bounds how many Secrets are read at the same time.
	readAtOnce = 8
)

// secrets are those that CeleryBrokers name, as they were last read. Not safe for
// concurrent use.
type secrets struct {
	client corev1.SecretsGetter
	read   map[types.NamespacedName]content
}

// content is what a Secret holds, or why that is not known.
type content struct {
	data map[string][]byte
	err  error
}

func newSecrets(client corev1.SecretsGetter) *secrets {
	return &secrets{client: client, read: map[types.NamespacedName]content{}}
}

// named are the Secrets that a document refers to.
func named(b *v1alpha1.CeleryBroker) []types.NamespacedName {
	var names []types.NamespacedName
	for _, r := range brokers.References(b) {
		if r.Secret != nil {
			names = append(names, types.NamespacedName{Namespace: b.Namespace, Name: r.Secret.Name})
		}
	}
	return names
}

// keep forgets all but these, and reads those that were not read yet; all of them with
// anew. It blocks until they are read.
func (s *secrets) keep(ctx context.Context, wanted map[types.NamespacedName]bool, anew bool) {
	maps.DeleteFunc(s.read, func(name types.NamespacedName, _ content) bool { return !wanted[name] })
	var missing []types.NamespacedName
	for name := range wanted {
		if _, known := s.read[name]; anew || !known {
			missing = append(missing, name)
		}
	}
	found := make([]content, len(missing))
	var reading errgroup.Group
	reading.SetLimit(readAtOnce)
	for i, name := range missing {
		reading.Go(func() error {
			found[i] = s.get(ctx, name)
			return nil
		})
	}
	_ = reading.Wait() // each keeps its own error
	for i, name := range missing {
		s.read[name] = found[i]
	}
}

// forget has these read anew by the next keep.
func (s *secrets) forget(names []types.NamespacedName) {
	for _, name := range names {
		delete(s.read, name)
	}
}

func (s *secrets) get(ctx context.Context, name types.NamespacedName) content {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	found, err := s.client.Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		return content{data: found.Data}
	case apierrors.IsNotFound(err):
		return content{err: fmt.Errorf("there is no Secret %s in namespace %s: create it", name.Name, name.Namespace)}
	case apierrors.IsForbidden(err):
		return content{err: fmt.Errorf("celery-hpa may not read Secret %s in namespace %s: give its ServiceAccount the right to get it, "+
			"by a RoleBinding in that namespace to the ClusterRole celery-hpa:secrets", name.Name, name.Namespace)}
	}
	return content{err: fmt.Errorf("read Secret %s in namespace %s: %w", name.Name, name.Namespace, err)}
}

// of returns how the references of documents of a namespace are read.
func (s *secrets) of(namespace string) brokers.Read {
	return func(r brokers.Reference) ([]byte, error) {
		c := s.read[types.NamespacedName{Namespace: namespace, Name: r.Secret.Name}]
		if c.err != nil {
			return nil, c.err
		}
		value, ok := c.data[r.Secret.Key]
		if !ok {
			return nil, fmt.Errorf("Secret %s has no key %s: %s", r.Secret.Name, r.Secret.Key, keysOf(c.data)) //nolint:staticcheck // Secret is a kind
		}
		return value, nil
	}
}

// keysOf lists the keys that there are.
func keysOf(data map[string][]byte) string {
	if len(data) == 0 {
		return "it has none"
	}
	return fmt.Sprintf("it has %q", slices.Sorted(maps.Keys(data)))
}
