package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Files are the paths of PEM files: an authority, and a certificate with its key
// for the server ("localhost" and 127.0.0.1) and for a client.
type Files struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string
	authority             *x509.Certificate
	authorityKey          *ecdsa.PrivateKey
	folder                string
}

// New makes an authority of its own and writes the files into the folder.
func New(t testing.TB, folder string) *Files {
	t.Helper()
	c := &Files{folder: folder}
	template := certificate("test authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	c.authorityKey = newKey(t)
	c.authority = template
	der, err := x509.CreateCertificate(rand.Reader, template, template, c.authorityKey.Public(), c.authorityKey)
	if err != nil {
		t.Fatalf("make the authority: %v", err)
	}
	if c.authority, err = x509.ParseCertificate(der); err != nil {
		t.Fatalf("make the authority: %v", err)
	}
	c.CA = c.write(t, "ca.pem", "CERTIFICATE", der)
	c.ServerCert, c.ServerKey = c.issue(t, "server")
	c.ClientCert, c.ClientKey = c.issue(t, "client")
	return c
}

// issue makes a certificate with its key.
func (c *Files) issue(t testing.TB, name string) (certFile, keyFile string) {
	t.Helper()
	template := certificate(name)
	template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, c.authority, key.Public(), c.authorityKey)
	if err != nil {
		t.Fatalf("make the certificate of the %s: %v", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encode the key of the %s: %v", name, err)
	}
	return c.write(t, name+".pem", "CERTIFICATE", der), c.write(t, name+"-key.pem", "PRIVATE KEY", keyDER)
}

func (c *Files) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(c.folder, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
	return path
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return key
}
