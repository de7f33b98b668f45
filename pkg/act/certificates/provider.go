package certificates

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// serve makes this what is served. What is said of that is empty where more was said
// already.
func (k *Keeper) serve(s state, saying string) {
	before := k.served.Swap(&s)
	if before != nil && before.serves(s) {
		return
	}
	if saying != "" {
		k.said.log.Info(saying, "until", s.serving.NotAfter)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, listener := range k.listeners {
		listener.Enqueue()
	}
}

// Name implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) Name() string { return "Secret " + k.secret.String() }

// Ready is an error while this serves with a certificate that nobody trusts, for want of
// one of the Secret.
func (k *Keeper) Ready() error {
	if k.served.Load() == nil {
		return errors.New("there is no serving certificate yet; the log says why")
	}
	return nil
}

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider. Both are
// PEM-encoded.
func (k *Keeper) CurrentCertKeyContent() (certificate, key []byte) {
	s := k.served.Load()
	if s == nil {
		s = &k.nobodys
	}
	return s.servingPEM, s.servingKeyPEM
}

// AddListener implements dynamiccertificates.Notifier: the listener is told whenever
// there is something else to serve.
func (k *Keeper) AddListener(listener dynamiccertificates.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners = append(k.listeners, listener)
}

// expiry is the metric of what is served; it has no value while that is nothing.
type expiry struct{ keeper *Keeper }

func (expiry) desc() *prometheus.Desc {
	return prometheus.NewDesc("celery_hpa_serving_certificate_expiry_timestamp_seconds",
		"Until when the certificate is good that this replica serves with, in seconds since 1970.", nil, nil)
}

// Describe implements prometheus.Collector.
func (e expiry) Describe(descs chan<- *prometheus.Desc) { descs <- e.desc() }

// Collect implements prometheus.Collector.
func (e expiry) Collect(metrics chan<- prometheus.Metric) {
	if s := e.keeper.served.Load(); s != nil {
		metrics <- prometheus.MustNewConstMetric(e.desc(), prometheus.GaugeValue, float64(s.serving.NotAfter.Unix()))
	}
}
