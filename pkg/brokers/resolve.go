package brokers

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Reference is where something is found that a document refers to: a file or a key of a
// Secret. The zero value refers to nothing.
type Reference struct {
	File   string
	Secret *v1alpha1.SecretKeyRef
}

// IsSet tells whether it refers to anything.
func (r Reference) IsSet() bool { return r.File != "" || r.Secret != nil }

// String is the file's path, or names the Secret and its key.
func (r Reference) String() string {
	if r.Secret != nil {
		return fmt.Sprintf("key %s of Secret %s", r.Secret.Key, r.Secret.Name)
	}
	return r.File
}

// at is the field that holds the reference, within its parent.
func (r Reference) at(parent *field.Path) *field.Path {
	if r.Secret != nil {
		return parent.Child("secretKeyRef")
	}
	return parent.Child("file")
}

// References returns all that a document refers to, in no order that means anything.
func References(b *v1alpha1.CeleryBroker) []Reference {
	spec := b.Spec
	ca, cert, key := ofTLS(spec.TLS)
	all := []Reference{
		{spec.URL.File, spec.URL.SecretKeyRef},
		ofCredential(spec.Redis.Sentinel.Password),
		ofCredential(spec.RabbitMQ.Management.Password), ca, cert, key,
	}
	var set []Reference
	for _, r := range all {
		if r.IsSet() {
			set = append(set, r)
		}
	}
	return set
}

func ofCredential(c v1alpha1.CredentialSource) Reference { return Reference{c.File, c.SecretKeyRef} }

func ofTLS(t v1alpha1.TLS) (ca, cert, key Reference) {
	return Reference{t.CAFile, t.CASecretKeyRef}, Reference{t.CertFile, t.CertSecretKeyRef}, Reference{t.KeyFile, t.KeySecretKeyRef}
}

// Read returns what a reference refers to. Its error shows no credential.
type Read func(Reference) ([]byte, error)

// Resolver joins documents with what they refer to. Make it with NewResolver. It is safe
// for concurrent use.
type Resolver struct {
	source v1alpha1.Source
	key    []byte // of the fingerprints
}

// NewResolver returns a Resolver of documents that come from there.
func NewResolver(source v1alpha1.Source) *Resolver {
	key := make([]byte, 32)
	// It is documented to never return an error.
	_, _ = rand.Read(key)
	return &Resolver{source: source, key: key}
}

// Resolve reads what a document, which is valid and has its defaults, refers to, and
// checks it. What is wrong is the broker's Err, which wraps it with the broker's name. It
// calls read from its own goroutine.
func (r *Resolver) Resolve(document v1alpha1.CeleryBroker, read Read) Broker {
	b := Broker{CeleryBroker: document}
	spec := field.NewPath("spec")
	var contents []string
	var errURL, errSentinel, errManagement, errTLS error
	b.URL, errURL = r.url(&b.CeleryBroker, read)
	b.SentinelPassword, errSentinel = password(b.Spec.Redis.Sentinel.Password, spec.Child("redis", "sentinel", "password"), read)
	b.ManagementPassword, errManagement = password(b.Spec.RabbitMQ.Management.Password, spec.Child("rabbitmq", "management", "password"), read)
	if errURL == nil {
		b.TLS, contents, errTLS = certificates(b.Spec.TLS, b.URL, read)
	}
	b.Err = at(b.String(), errors.Join(errURL, errSentinel, errManagement, errTLS))
	if b.Err != nil {
		b.URL, b.SentinelPassword, b.ManagementPassword, b.TLS = "", "", "", PEM{}
	}
	b.Fingerprint = r.fingerprint(b, contents)
	return b
}

// Refuse returns the broker of a document that cannot be used, which Err says why.
func (r *Resolver) Refuse(document v1alpha1.CeleryBroker, err error) Broker {
	b := Broker{CeleryBroker: document, Err: err}
	b.Err = at(b.String(), err)
	b.Fingerprint = r.fingerprint(b, nil)
	return b
}

// url returns the broker's URL, checked.
func (r *Resolver) url(b *v1alpha1.CeleryBroker, read Read) (string, error) {
	from := Reference{b.Spec.URL.File, b.Spec.URL.SecretKeyRef}
	if !from.IsSet() {
		return b.Spec.URL.Value, nil
	}
	path := from.at(field.NewPath("spec", "url"))
	url, err := line(from, read)
	if err != nil {
		return "", at(path.String(), err)
	}
	if err := v1alpha1.ValidateURL(b, r.source, url, path).ToAggregate(); err != nil {
		return "", err
	}
	return url, nil
}

// password returns a password, empty where there is none.
func password(source v1alpha1.CredentialSource, path *field.Path, read Read) (string, error) {
	from := ofCredential(source)
	if !from.IsSet() {
		return "", nil
	}
	found, err := line(from, read)
	return found, at(from.at(path).String(), err)
}

// line returns the one line that a reference refers to, without space behind it.
func line(from Reference, read Read) (string, error) {
	data, err := read(from)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(data), " \t\r\n")
	if text == "" {
		return "", fmt.Errorf("%s is empty", from)
	}
	if strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line", from)
	}
	return text, nil
}

// certificates returns the certificates and keys that the document refers to, and the
// contents of those that its URL names as well, checked to fit together: while they are
// being replaced, a new certificate may stand beside the old key.
func certificates(t v1alpha1.TLS, url string, read Read) (PEM, []string, error) {
	ca, cert, key := ofTLS(t)
	own, err := readPEM("spec.tls", ca, cert, key, read)
	if err != nil {
		return PEM{}, nil, err
	}
	contents := own.contents()
	parsed, err := celery.ParseBrokerURL(url)
	if err != nil {
		return PEM{}, nil, err
	}
	for _, e := range parsed.Endpoints {
		if e.TLS == nil {
			continue
		}
		more, err := readPEM("TLS parameters of the URL",
			Reference{File: e.TLS.CAFile}, Reference{File: e.TLS.CertFile}, Reference{File: e.TLS.KeyFile}, read)
		if err != nil {
			return PEM{}, nil, err
		}
		contents = append(contents, more.contents()...)
	}
	return own, contents, nil
}

// readPEM reads and checks authorities, certificate and key, of which each may
// be missing. Where names what they belong to.
func readPEM(where string, ca, cert, key Reference, read Read) (PEM, error) {
	var p PEM
	for _, part := range []struct {
		from Reference
		to   *[]byte
	}{{ca, &p.CA}, {cert, &p.Cert}, {key, &p.Key}} {
		if !part.from.IsSet() {
			continue
		}
		var err error
		if *part.to, err = read(part.from); err != nil {
			return PEM{}, at(where, err)
		}
	}
	if ca.IsSet() && !x509.NewCertPool().AppendCertsFromPEM(p.CA) {
		return PEM{}, fmt.Errorf("%s: %s holds no certificate in PEM format", where, ca)
	}
	if cert.IsSet() && key.IsSet() {
		if _, err := tls.X509KeyPair(p.Cert, p.Key); err != nil {
			return PEM{}, fmt.Errorf("%s: certificate %s with key %s: %w", where, cert, key, err)
		}
	}
	return p, nil
}

func (p PEM) contents() []string { return []string{string(p.CA), string(p.Cert), string(p.Key)} }

// at says which field err is about; nil stays nil.
func at(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}

// fingerprint digests b and the contents behind it with a key that nobody else has,
// without which a short password could be guessed from it.
func (r *Resolver) fingerprint(b Broker, contents []string) string {
	// Strings and durations always marshal.
	document, _ := json.Marshal(b.Spec)
	mac := hmac.New(sha256.New, r.key)
	said := ""
	if b.Err != nil {
		said = b.Err.Error()
	}
	// %q keeps the parts apart and differs for bytes that are not UTF-8. The document, which
	// may be large, is JSON: it ends where it ends.
	fmt.Fprintf(mac, "%q %s %q %q %q", b.String(), document, []string{b.URL, b.SentinelPassword, b.ManagementPassword}, contents, said)
	return hex.EncodeToString(mac.Sum(nil))
}
