package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// PEM is the content of PEM files: authorities, client certificate and key. Each may be
// empty.
type PEM struct{ CA, Cert, Key []byte }

// TLSConfig returns how to secure a connection to the endpoint, nil for a plain
// one. What p has goes before the files of the URL; if it has anything, the connection
// is secured whatever the URL says. It reads the URL's files.
func (p PEM) TLSConfig(e celery.Endpoint) (*tls.Config, error) {
	params := celery.TLSParams{}
	if e.TLS != nil {
		params = *e.TLS
	}
	if e.TLS == nil && len(p.CA)+len(p.Cert)+len(p.Key) == 0 {
		return nil, nil //nolint:nilnil // nil is documented: plain
	}
	p, err := p.completed(params)
	if err != nil {
		return nil, err
	}
	return p.config(params, e.Host)
}

// completed reads what p lacks from the files of the URL.
func (p PEM) completed(params celery.TLSParams) (PEM, error) {
	for _, part := range []struct {
		content    *[]byte
		what, file string
	}{{&p.CA, "CA", params.CAFile}, {&p.Cert, "client certificate", params.CertFile}, {&p.Key, "client key", params.KeyFile}} {
		if len(*part.content) > 0 || part.file == "" {
			continue
		}
		var err error
		if *part.content, err = os.ReadFile(part.file); err != nil {
			return PEM{}, fmt.Errorf("read the %s file: %w", part.what, err)
		}
	}
	return p, nil
}

func (p PEM) config(params celery.TLSParams, host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: params.SkipVerify} //nolint:gosec // only where the URL says ssl_cert_reqs=none
	if len(p.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(p.CA) {
			return nil, errors.New("the authorities hold no certificate in PEM form")
		}
	}
	if len(p.Cert)+len(p.Key) > 0 {
		key := p.Key
		if len(key) == 0 {
			key = p.Cert // one file may hold both
		}
		pair, err := tls.X509KeyPair(p.Cert, key)
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
