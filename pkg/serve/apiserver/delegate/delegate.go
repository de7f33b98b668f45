package delegate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
)

const (
	// timeout bounds a question to the other server. The HPA asks one metric after the
	// other: one that hangs is not to hold up all.
	timeout = 5 * time.Second
	// listInterval is the time from one reading of the other server's list of metrics to
	// the next.
	listInterval = 10 * time.Second
	// passedOn is the header of a question that was passed on once. A server that gets
	// one and would pass it on again is in a loop.
	passedOn = "Celery-Hpa-Passed-On"
)

// Options say where the other server is.
type Options struct {
	// URL is https://HOST:PORT, with the DNS name of a Service as host. Empty: there is
	// no other server.
	URL string
	// CAFile is the path of the authorities of its certificate, in PEM format; empty:
	// those of the cluster.
	CAFile string
	// SkipVerify takes any certificate.
	SkipVerify bool
}

// Validate refuses what cannot be another server. Own are host names of this one.
func (o Options) Validate(own ...string) error {
	if o.URL == "" {
		if o.CAFile != "" || o.SkipVerify {
			return errors.New("--delegate-ca-file and --delegate-insecure-skip-tls-verify go with --delegate")
		}
		return nil
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil, u.Scheme != "https", u.Host == "", u.User != nil, u.RawQuery != "", u.Path != "" && u.Path != "/":
		return errors.New("--delegate: want https://HOST:PORT, such as https://keda-operator-metrics-apiserver.keda.svc:443")
	case slices.Contains(own, u.Hostname()):
		return fmt.Errorf("--delegate: %s is celery-hpa itself: name the server of external metrics that the cluster had before", u.Host)
	case o.CAFile != "" && o.SkipVerify:
		return errors.New("--delegate-ca-file and --delegate-insecure-skip-tls-verify exclude each other")
	}
	return nil
}

// Provider serves our metrics and asks another server for all others. Make it with New.
// It is safe for concurrent use.
type Provider struct {
	ours    provider.ExternalMetricsProvider
	names   map[string]bool // of ours
	address string
	client  rest.Interface
	log     *slog.Logger

	others   atomic.Pointer[[]provider.ExternalMetricInfo]
	reported string // the text of the failure that was logged last
}

var _ provider.ExternalMetricsProvider = (*Provider)(nil)

// New makes a provider that asks nobody yet. It shows the other server the credentials
// with which celery-hpa asks the API server: the other server asks that who it is, and
// whether it may read external metrics.
func New(cluster *rest.Config, o Options, ours provider.ExternalMetricsProvider, log *slog.Logger) (*Provider, error) {
	config := rest.CopyConfig(cluster)
	config.Host, config.APIPath = o.URL, "/apis"
	config.GroupVersion, config.NegotiatedSerializer = &v1beta1.SchemeGroupVersion, scheme.Codecs.WithoutConversion()
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	config.Timeout, config.QPS = timeout, -1
	config.ServerName = ""
	if o.CAFile != "" {
		config.CAFile, config.CAData = o.CAFile, nil
	}
	if o.SkipVerify {
		config.Insecure, config.CAFile, config.CAData = true, "", nil
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return marking{next} })
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", o.URL, err)
	}
	p := &Provider{ours: ours, names: map[string]bool{}, address: o.URL, client: client, log: log}
	for _, m := range ours.ListAllExternalMetrics() {
		p.names[m.Metric] = true
	}
	p.others.Store(&[]provider.ExternalMetricInfo{})
	return p, nil
}

// marking marks each question as one that was passed on.
type marking struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (m marking) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(passedOn, "true")
	return m.next.RoundTrip(r)
}

type passedOnKey struct{}

// Heed lets GetExternalMetric know of requests that were passed on already.
func Heed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(passedOn) != "" {
			r = r.WithContext(context.WithValue(r.Context(), passedOnKey{}, true))
		}
		next.ServeHTTP(w, r)
	})
}

// ListAllExternalMetrics names our metrics, and those that the other server has told of.
func (p *Provider) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	return slices.Concat(p.ours.ListAllExternalMetrics(), *p.others.Load())
}

// GetExternalMetric answers itself for a metric of ours. For any other it passes the
// question on, once, and the answer or the error back; it blocks for five seconds at
// most.
func (p *Provider) GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	if p.names[info.Metric] {
		return p.ours.GetExternalMetric(ctx, namespace, selector, info)
	}
	if ctx.Value(passedOnKey{}) != nil {
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusLoopDetected,
			Message: fmt.Sprintf("metric %s was asked for by way of celery-hpa, which does not have it and would ask %s for it: "+
				"one of the servers of external metrics must not pass questions on", info.Metric, p.address),
		}}
	}
	var found v1beta1.ExternalMetricValueList
	err := p.client.Get().Namespace(namespace).Resource(info.Metric).
		VersionedParams(&metav1.ListOptions{LabelSelector: selector.String()}, metav1.ParameterCodec).
		Do(ctx).Into(&found)
	if err != nil {
		return nil, p.explain(info.Metric, err)
	}
	answer := &external_metrics.ExternalMetricValueList{}
	if err := v1beta1.Convert_v1beta1_ExternalMetricValueList_To_external_metrics_ExternalMetricValueList(&found, answer, nil); err != nil {
		return nil, p.explain(info.Metric, err)
	}
	return answer, nil
}

// explain passes on what the other server has said, and says so of what kept it from
// saying anything.
func (p *Provider) explain(metric string, err error) error {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return status
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf(
		"metric %s is not one of celery-hpa, and %s, which is asked for all others, does not answer: %v", metric, p.address, err))
}

// Run keeps the list of the other server's metrics until ctx is done and then returns
// nil. It blocks. While that server does not answer, its last list stays; why it does not
// is logged once.
func (p *Provider) Run(ctx context.Context) error {
	ticker := time.NewTicker(listInterval)
	defer ticker.Stop()
	for {
		if err := p.list(ctx); ctx.Err() == nil {
			p.report(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p *Provider) list(ctx context.Context) error {
	var found metav1.APIResourceList
	err := p.client.Get().AbsPath("/apis/" + v1beta1.SchemeGroupVersion.String()).Do(ctx).Into(&found)
	if err != nil {
		return err
	}
	others := make([]provider.ExternalMetricInfo, 0, len(found.APIResources))
	for _, r := range found.APIResources {
		if !p.names[r.Name] {
			others = append(others, provider.ExternalMetricInfo{Metric: r.Name})
		}
	}
	p.others.Store(&others)
	return nil
}

func (p *Provider) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.reported {
		return
	}
	p.reported = text
	if err != nil {
		p.log.Warn("The other server of external metrics does not list its metrics; questions are passed on all the same", "address", p.address, "error", err)
		return
	}
	p.log.Info("The other server of external metrics lists its metrics", "address", p.address)
}
