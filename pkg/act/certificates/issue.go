package certificates

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"k8s.io/client-go/util/keyutil"
)

// skew is how far clocks may differ: certificates are good from so much earlier on.
const skew = time.Hour

// withNewAuthority has a new authority sign from now on. The serving certificate stays,
// and with it who has signed it.
func (o Options) withNewAuthority(s state, now time.Time) (state, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return s, err
	}
	template := newTemplate(fmt.Sprintf("celery-hpa@%d", now.Unix()), now, now.Add(o.AuthorityLifetime))
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	authority, err := sign(template, template, key.Public(), key)
	if err != nil {
		return s, err
	}
	s = s.trusting(append([]*x509.Certificate{authority}, s.stillTrusted(now)...))
	s.signer, s.key, s.keyPEM, s.flaw = authority, key, keyPEM, ""
	return s, nil
}

// withNewServing has the signer sign a new serving certificate, with a new key.
func (o Options) withNewServing(s state, now time.Time) (state, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return s, err
	}
	names, end := o.names(), now.Add(o.Lifetime)
	if s.signer.NotAfter.Before(end) {
		end = s.signer.NotAfter
	}
	template := newTemplate(names[0], now, end)
	template.DNSNames = names
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serving, err := sign(template, s.signer, key.Public(), s.key)
	if err != nil {
		return s, err
	}
	s.serving, s.by, s.servingPEM, s.servingKeyPEM = serving, s.signer, encode(serving), keyPEM
	return s, nil
}

func newTemplate(name string, now, end time.Time) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: end}
}

// sign draws a serial number and returns the certificate as others read it.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// newKey makes a key on the curve P-256.
func newKey() (crypto.Signer, []byte, error) {
	text, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(text)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("make a key: it cannot sign")
	}
	return key, text, nil
}
