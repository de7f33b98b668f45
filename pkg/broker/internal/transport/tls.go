package transport

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Files are the paths of PEM files: authorities, client certificate and key. Each
// may be empty.
type Files struct{ CA, Cert, Key string }

// TLSConfig returns how to secure a connection to the endpoint, nil for a plain
// one. Files go before those of the URL; if one is set, the connection is secured
// whatever the URL says. It reads the files.
func (f Files) TLSConfig(e celery.Endpoint) (*tls.Config, error) {
	params := celery.TLSParams{}
	if e.TLS != nil {
		params = *e.TLS
	}
	overrides := []struct {
		to   *string
		from string
	}{{&params.CAFile, f.CA}, {&params.CertFile, f.Cert}, {&params.KeyFile, f.Key}}
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
		pair, err := tls.LoadX509KeyPair(params.CertFile, cmp.Or(params.KeyFile, params.CertFile))
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
