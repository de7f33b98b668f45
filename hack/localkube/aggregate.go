package localkube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
)

// externalMetrics is the API group that the HPA reads external metrics from.
func externalMetrics() schema.GroupVersion {
	return schema.GroupVersion{Group: "external.metrics.k8s.io", Version: "v1beta1"}
}

// AggregateExternalMetrics is Aggregate for the external metrics API.
func (c *Cluster) AggregateExternalMetrics(ctx context.Context, namespace, service string, port int32, caBundle []byte) error {
	return c.Aggregate(ctx, externalMetrics(), namespace, service, port, caBundle)
}

// Aggregate makes the API server forward an API group version to a server that
// listens on the port of loopback. The server must show a certificate for
// "SERVICE.NAMESPACE.svc" that caBundle trusts (see ServingCert and CABundle). The
// namespace and a Service and an APIService are made, or changed where they are
// there already. It does not wait for the server: see AwaitAggregated.
func (c *Cluster) Aggregate(ctx context.Context, api schema.GroupVersion, namespace, service string, port int32, caBundle []byte) error {
	clients, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := exposeLoopback(ctx, clients, namespace, service); err != nil {
		return err
	}
	registry, err := aggregator.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	wanted := apiService(api, apiregistrationv1.ServiceReference{Namespace: namespace, Name: service, Port: &port}, caBundle)
	return register(ctx, registry, wanted)
}

// AwaitAggregated blocks until the API server has reached the server of an API
// group version, or ctx ends; then the error says what the API server last saw.
func (c *Cluster) AwaitAggregated(ctx context.Context, api schema.GroupVersion) error {
	registry, err := aggregator.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	name := apiServiceName(api)
	return c.poll(ctx, func(ctx context.Context) error {
		found, err := registry.ApiregistrationV1().APIServices().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("get APIService %s: %w", name, err)
		}
		return available(found)
	})
}

// AwaitExternalMetrics is AwaitAggregated for the external metrics API.
func (c *Cluster) AwaitExternalMetrics(ctx context.Context) error {
	return c.AwaitAggregated(ctx, externalMetrics())
}

func available(service *apiregistrationv1.APIService) error {
	for _, condition := range service.Status.Conditions {
		if condition.Type != apiregistrationv1.Available {
			continue
		}
		if condition.Status == apiregistrationv1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("APIService %s is not available: %s: %s", service.Name, condition.Reason, condition.Message)
	}
	return fmt.Errorf("APIService %s has not been tried yet", service.Name)
}

// exposeLoopback makes a service that the aggregator resolves to loopback. A
// service with endpoints cannot: EndpointSlices refuse loopback addresses.
func exposeLoopback(ctx context.Context, clients kubernetes.Interface, namespace, service string) error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := clients.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", namespace, err)
	}
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: namespace},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}
	_, err = clients.CoreV1().Services(namespace).Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = clients.CoreV1().Services(namespace).Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("expose loopback as service %s/%s: %w", namespace, service, err)
	}
	return nil
}

func apiServiceName(api schema.GroupVersion) string { return api.Version + "." + api.Group }

func apiService(api schema.GroupVersion, target apiregistrationv1.ServiceReference, caBundle []byte) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: apiServiceName(api)},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: api.Group, Version: api.Version,
			GroupPriorityMinimum: 100, VersionPriority: 100,
			Service: &target, CABundle: caBundle,
		},
	}
}

func register(ctx context.Context, registry aggregator.Interface, wanted *apiregistrationv1.APIService) error {
	services := registry.ApiregistrationV1().APIServices()
	_, err := services.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var found *apiregistrationv1.APIService
		if found, err = services.Get(ctx, wanted.Name, metav1.GetOptions{}); err == nil {
			found.Spec = wanted.Spec
			_, err = services.Update(ctx, found, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("register APIService %s: %w", wanted.Name, err)
	}
	return nil
}
