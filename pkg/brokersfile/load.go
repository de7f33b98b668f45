package brokersfile

import (
	"bytes"
	"fmt"
	"path/filepath"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

// Load reads the brokers file at path once, and every file that its brokers
// refer to. Its error lists everything that is wrong with the brokers file, as
// v1alpha1.DecodeBrokers does. What is wrong with a file that a broker refers to
// is that broker's Err. No error shows a credential.
func Load(path string) ([]brokers.Broker, error) {
	l, err := newLoader(path)
	if err != nil {
		return nil, err
	}
	return l.load()
}

// loader reads one brokers file, again and again. It is not safe for concurrent
// use.
type loader struct {
	path     string // absolute
	resolver *brokers.Resolver

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
	return &loader{path: absolute, resolver: brokers.NewResolver(v1alpha1.FromFile)}, nil
}

// load reads the brokers file and everything that it refers to.
func (l *loader) load() ([]brokers.Broker, error) {
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
	found := make([]brokers.Broker, len(l.document))
	for i, document := range l.document {
		found[i] = l.resolve(document)
	}
	return found, nil
}

// resolve reads what a document refers to.
func (l *loader) resolve(document v1alpha1.CeleryBroker) brokers.Broker {
	l.makeAbsolute(&document.Spec)
	return l.resolver.Resolve(document, func(r brokers.Reference) ([]byte, error) { return readFile(r.File) })
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
