package brokersfile

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Load reads the brokers file at path once, and every file that its brokers
// refer to. Its error lists everything that is wrong with the brokers file, as
// v1alpha1.DecodeBrokers does. What is wrong with a file that a broker refers to
// is that broker's Err. No error shows a credential.
func Load(path string) ([]Broker, error) {
	l, err := newLoader(path)
	if err != nil {
		return nil, err
	}
	return l.load()
}

// loader reads one brokers file, again and again. It is not safe for concurrent
// use.
type loader struct {
	path string // absolute
	key  []byte // of the fingerprints

	// What the file held when it was last read, and what that means: most
	// readings find it unchanged.
	data     []byte
	isRead   bool
	document []v1alpha1.CeleryBroker
	err      error
}

// newLoader returns a loader of the file at path, which it does not read yet.
func newLoader(path string) (*loader, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("brokers file %s: %w", path, err)
	}
	key := make([]byte, 32)
	// It is documented to never return an error.
	_, _ = rand.Read(key)
	return &loader{path: absolute, key: key}, nil
}

// load reads the brokers file and everything that it refers to.
func (l *loader) load() ([]Broker, error) {
	data, err := readFile(l.path)
	if err != nil {
		return nil, fmt.Errorf("brokers file: %w", err)
	}
	if !l.isRead || !bytes.Equal(data, l.data) {
		l.document, l.err = v1alpha1.DecodeBrokers(data)
		l.data, l.isRead = data, true
	}
	if l.err != nil {
		return nil, fmt.Errorf("brokers file %s:\n%w", l.path, l.err)
	}
	brokers := make([]Broker, len(l.document))
	for i, document := range l.document {
		brokers[i] = l.resolve(document)
	}
	return brokers, nil
}

// resolve reads what a document refers to.
func (l *loader) resolve(document v1alpha1.CeleryBroker) Broker {
	b := Broker{CeleryBroker: document}
	l.makeAbsolute(&b.Spec)
	var contents []string
	var errURL, errSentinel, errManagement, errTLS error
	b.URL, errURL = resolveURL(&b.CeleryBroker)
	b.SentinelPassword, errSentinel = resolvePassword(b.Spec.Redis.Sentinel.Password, "spec.redis.sentinel.password.file")
	b.ManagementPassword, errManagement = resolvePassword(b.Spec.RabbitMQ.Management.Password, "spec.rabbitmq.management.password.file")
	if errURL == nil {
		contents, errTLS = readTLS(b.Spec.TLS, b.URL)
	}
	b.Err = joined(b, errURL, errSentinel, errManagement, errTLS)
	if b.Err != nil {
		b.URL, b.SentinelPassword, b.ManagementPassword = "", "", ""
	}
	b.Fingerprint = fingerprint(l.key, b, contents)
	return b
}

// makeAbsolute makes the paths in spec begin at the folder of the brokers file.
func (l *loader) makeAbsolute(spec *v1alpha1.CeleryBrokerSpec) {
	paths := []*string{
		&spec.URL.File, &spec.Redis.Sentinel.Password.File, &spec.RabbitMQ.Management.Password.File,
		&spec.TLS.CAFile, &spec.TLS.CertFile, &spec.TLS.KeyFile,
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(l.path), *path)
		}
	}
}

// resolveURL returns the broker's URL, checked.
func resolveURL(b *v1alpha1.CeleryBroker) (string, error) {
	if b.Spec.URL.File == "" {
		return b.Spec.URL.Value, nil
	}
	path := field.NewPath("spec", "url", "file")
	url, err := readCredential(b.Spec.URL.File)
	if err != nil {
		return "", at(path.String(), err)
	}
	if err := v1alpha1.ValidateURL(b, v1alpha1.FromFile, url, path).ToAggregate(); err != nil {
		return "", err
	}
	return url, nil
}

// resolvePassword returns the password of source, the file at path, empty where
// there is none.
func resolvePassword(source v1alpha1.CredentialSource, path string) (string, error) {
	if source.File == "" {
		return "", nil
	}
	password, err := readCredential(source.File)
	return password, at(path, err)
}

// readTLS returns the contents of the files of certificates and keys that the
// document and its URL name, checked to fit together: while they are being
// replaced, a new certificate may stand beside the old key.
func readTLS(t v1alpha1.TLS, url string) ([]string, error) {
	contents, err := readPEM("spec.tls", t.CAFile, t.CertFile, t.KeyFile)
	if err != nil {
		return nil, err
	}
	parsed, err := celery.ParseBrokerURL(url)
	if err != nil {
		return nil, err
	}
	for _, e := range parsed.Endpoints {
		if e.TLS == nil {
			continue
		}
		more, err := readPEM("TLS parameters of the URL", e.TLS.CAFile, e.TLS.CertFile, e.TLS.KeyFile)
		if err != nil {
			return nil, err
		}
		contents = append(contents, more...)
	}
	return contents, nil
}

// readPEM reads and checks authorities, certificate and key, of which each may
// be missing. Where names what they belong to.
func readPEM(where, caFile, certFile, keyFile string) ([]string, error) {
	var contents [3][]byte
	for i, path := range []string{caFile, certFile, keyFile} {
		if path == "" {
			continue
		}
		var err error
		if contents[i], err = readFile(path); err != nil {
			return nil, at(where, err)
		}
	}
	ca, cert, key := contents[0], contents[1], contents[2]
	if caFile != "" && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM format", where, caFile)
	}
	if certFile != "" && keyFile != "" {
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			return nil, fmt.Errorf("%s: certificate %s with key %s: %w", where, certFile, keyFile, err)
		}
	}
	return []string{string(ca), string(cert), string(key)}, nil
}

// at says which field err is about; nil stays nil.
func at(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}

// joined joins what is wrong with b; nil where nothing is.
func joined(b Broker, errs ...error) error {
	return at(b.String(), errors.Join(errs...))
}
