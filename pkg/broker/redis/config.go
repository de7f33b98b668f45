package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Defaults of Config.
const (
	// DefaultTimeout is that of one sample, dialling included.
	DefaultTimeout = 2 * time.Second
	// DefaultMaxTags is how many messages in flight are remembered one by one.
	// A million take about 70 MB.
	DefaultMaxTags = 1_000_000
	// DefaultMaxFetch is how many unseen messages one sample fetches.
	DefaultMaxFetch = 25_000
)

// Config says which broker to read and how. Everything is resolved: New reads
// no file but those of TLS.
type Config struct {
	// Ref names the broker in errors.
	Ref queue.BrokerRef
	// URL is the broker's as Celery has it, with credentials.
	URL string
	// Queues are the queues to read. None: all that the broker knows.
	Queues []string

	// GlobalKeyPrefix, Separator, UnackedKey and UnackedIndexKey are Celery's
	// transport options global_keyprefix, sep, unacked_key and
	// unacked_index_key; empty means Celery's default.
	GlobalKeyPrefix string
	Separator       string
	UnackedKey      string
	UnackedIndexKey string

	// MasterName is the transport option master_name, needed with Sentinel.
	MasterName string
	// SentinelUsername and SentinelPassword are for the sentinels themselves
	// (sentinel_kwargs); the servers' are in the URL.
	SentinelUsername string
	SentinelPassword string

	// TLS files go before those of the URL. If one is set, the connection is
	// secured whatever the URL's scheme (Celery's broker_use_ssl). A changed
	// file needs a new driver.
	CAFile   string
	CertFile string
	KeyFile  string

	// Timeout bounds one sample; 0 means DefaultTimeout.
	Timeout time.Duration
	// MaxTags bounds the messages in flight that are remembered; 0 means
	// DefaultMaxTags. With more, in-flight counts are estimated.
	MaxTags int
	// MaxFetch bounds the unseen messages fetched in one sample; 0 means
	// DefaultMaxFetch. Until all are fetched, in-flight counts are unknown.
	MaxFetch int
}

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxTags <= 0 {
		c.MaxTags = DefaultMaxTags
	}
	if c.MaxFetch <= 0 {
		c.MaxFetch = DefaultMaxFetch
	}
	return c
}

// parseURL reads the URL and checks what belongs together with it.
func (c Config) parseURL() (celery.BrokerURL, error) {
	u, err := celery.ParseBrokerURL(c.URL)
	if err != nil {
		return celery.BrokerURL{}, err
	}
	switch {
	case u.Transport == celery.TransportAMQP:
		return celery.BrokerURL{}, fmt.Errorf("%w: an AMQP broker is not read by the Redis driver", celery.ErrBrokerURL)
	case u.Transport == celery.TransportSentinel && c.MasterName == "":
		return celery.BrokerURL{}, errors.New("a sentinel URL needs the name of the monitored service (transport option master_name)")
	}
	return u, nil
}

// tlsConfig returns nil for a plain connection.
func (c Config) tlsConfig(e celery.Endpoint) (*tls.Config, error) {
	params := celery.TLSParams{}
	if e.TLS != nil {
		params = *e.TLS
	}
	overrides := []struct {
		to   *string
		from string
	}{{&params.CAFile, c.CAFile}, {&params.CertFile, c.CertFile}, {&params.KeyFile, c.KeyFile}}
	secure := e.TLS != nil
	for _, o := range overrides {
		if o.from != "" {
			*o.to, secure = o.from, true
		}
	}
	if !secure {
		return nil, nil //nolint:nilnil // nil is documented: plain
	}
	return loadTLS(params, e.Host)
}

// loadTLS reads the files.
func loadTLS(params celery.TLSParams, host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: params.SkipVerify} //nolint:gosec // only where the URL says ssl_cert_reqs=none
	if params.CAFile != "" {
		pem, err := os.ReadFile(params.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", params.CAFile)
		}
	}
	if params.CertFile != "" || params.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(params.CertFile, orElse(params.KeyFile, params.CertFile))
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if params.SkipHostname && !params.SkipVerify {
		config.InsecureSkipVerify = true
		config.VerifyConnection = verifyChain(config.RootCAs)
	}
	return config, nil
}

// verifyChain verifies the server's certificate for any name.
func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}

// orElse is s, or fallback if s is empty.
func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
