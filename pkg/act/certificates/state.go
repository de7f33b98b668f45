package certificates

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// The keys of the Secret.
const (
	// trustedName holds the certificates of all authorities that are trusted.
	trustedName = "ca.crt"
	// signerKeyName holds the private key of the authority that signs.
	signerKeyName  = "ca.key"
	servingName    = corev1.TLSCertKey
	servingKeyName = corev1.TLSPrivateKeyKey
)

// mostTrusted bounds the authorities of a Secret, which is of use where somebody spoils
// it again and again.
const mostTrusted = 4

// state is what the Secret holds. Copies share what they point to, which nobody changes.
type state struct {
	trusted []*x509.Certificate // the latest first
	signer  *x509.Certificate   // that of trusted which signs; nil if its key is not known
	key     crypto.Signer       // the signer's
	serving *x509.Certificate   // nil if there is none to serve
	by      *x509.Certificate   // that of trusted which has signed it
	// flaw says why this is not all that celery-hpa makes; empty if it is. Without a
	// signer or a serving certificate there is one.
	flaw string

	trustedPEM, keyPEM, servingPEM, servingKeyPEM []byte
}

// decode reads a Secret, whatever it holds.
func decode(data map[string][]byte) state {
	trusted, err := cert.ParseCertsPEM(data[trustedName])
	if err != nil || slices.ContainsFunc(trusted, func(c *x509.Certificate) bool { return !c.IsCA }) {
		return state{flaw: trustedName + " does not hold certificates of authorities"}
	}
	s := state{}.trusting(trusted)
	s.servingPEM, s.servingKeyPEM = data[servingName], data[servingKeyName]
	pair, err := tls.X509KeyPair(s.servingPEM, s.servingKeyPEM)
	if err != nil {
		return state{flaw: servingName + " and " + servingKeyName + " are not a certificate and its key"}
	}
	s.serving = pair.Leaf
	if s.by = s.authorityOf(pair.Leaf); s.by == nil {
		return state{flaw: servingName + " is signed by no authority of " + trustedName}
	}
	return s.signing(data[signerKeyName])
}

// encoded is the reverse of decode.
func (s state) encoded() map[string][]byte {
	return map[string][]byte{
		trustedName: s.trustedPEM, signerKeyName: s.keyPEM,
		servingName: s.servingPEM, servingKeyName: s.servingKeyPEM,
	}
}

// signing has that authority sign whose key this is.
func (s state) signing(keyPEM []byte) state {
	s.flaw = signerKeyName + " is the key of no authority of " + trustedName
	parsed, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		return s
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return s
	}
	for _, authority := range s.trusted {
		public, ok := authority.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if ok && public.Equal(key.Public()) {
			s.signer, s.key, s.keyPEM, s.flaw = authority, key, keyPEM, ""
		}
	}
	return s
}

// trusting makes these the authorities.
func (s state) trusting(authorities []*x509.Certificate) state {
	s.trusted, s.trustedPEM = authorities, encode(authorities...)
	return s
}

// authorityOf is that authority which has signed a certificate, nil if none has.
func (s state) authorityOf(serving *x509.Certificate) *x509.Certificate {
	for _, authority := range s.trusted {
		if serving.CheckSignatureFrom(authority) == nil {
			return authority
		}
	}
	return nil
}

// stillTrusted are those that a new authority joins: who has signed what is served, and
// as many of the others as there is room for.
func (s state) stillTrusted(now time.Time) []*x509.Certificate {
	if s.serving == nil {
		return nil
	}
	still := []*x509.Certificate{s.by}
	for _, authority := range s.trusted {
		if authority != s.by && now.Before(authority.NotAfter) && len(still) < mostTrusted-1 {
			still = append(still, authority)
		}
	}
	return still
}

// serves tells whether both are the same to whoever asks.
func (s state) serves(other state) bool {
	return bytes.Equal(s.servingPEM, other.servingPEM) && bytes.Equal(s.servingKeyPEM, other.servingKeyPEM)
}

func encode(certs ...*x509.Certificate) []byte {
	text, _ := cert.EncodeCertificates(certs...) // into memory, which cannot fail
	return text
}
