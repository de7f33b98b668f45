package brokersfile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
)

// document is a brokers file's document for a broker called name.
func document(name, spec string) string {
	return "---\napiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

// write puts text into the file name of dir and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyPair returns a certificate of its own authority, and its key, as PEM.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}

func TestLoadReadsWhatBrokersReferTo(t *testing.T) {
	dir := t.TempDir()
	cert, key := keyPair(t)
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "url", "sentinel://:hunter2@h \r\n\n")
	write(t, dir, "amqp", "amqp://u:hunter2@h")
	write(t, dir, "management", "of the management\n")
	absolute := write(t, dir, "password", "  of the sentinels\n")
	path := write(t, dir, "brokers.yaml", document("inline", "url: {value: 'redis://h/1'}")+
		document("files", "url: {file: url}, tls: {caFile: cert.pem, certFile: cert.pem, keyFile: key.pem}, redis: {masterName: m, sentinel: {password: {file: "+absolute+"}}}")+
		document("rabbitmq", "url: {file: amqp}, rabbitmq: {management: {username: m, password: {file: management}}}"))

	brokers, err := brokersfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	type content struct{ Ref, URL, Sentinel, Management, CAFile, ManagementFile string }
	var got []content
	for _, b := range brokers {
		if b.Err != nil {
			t.Error(b.Err)
		}
		got = append(got, content{b.Ref().String(), b.URL, b.SentinelPassword, b.ManagementPassword, b.Spec.TLS.CAFile, b.Spec.RabbitMQ.Management.Password.File})
	}
	want := []content{
		{"default/inline", "redis://h/1", "", "", "", ""},
		{"default/files", "sentinel://:hunter2@h", "  of the sentinels", "", filepath.Join(dir, "cert.pem"), ""},
		{"default/rabbitmq", "amqp://u:hunter2@h", "", "of the management", "", filepath.Join(dir, "management")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadRefusesABadBrokersFile(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "large", strings.Repeat("#", 1<<20+1))
	write(t, dir, "mistakes", document("a", "url: {valeu: x}")+document("b", "url: {value: 'redis://:hunter2@h'}, x: 1"))
	tests := []struct{ rule, file, want string }{
		{"a missing file", "missing", "brokers file: stat DIR/missing: no such file or directory: check the path and that this process may read it"},
		{"a folder", ".", "brokers file: DIR is not a regular file"},
		{"a pipe, without waiting for its writer", "pipe", "brokers file: DIR/pipe is not a regular file"},
		{"a file that is too large", "large", "brokers file: DIR/large is larger than 1048576 bytes"},
		{"all mistakes of a file", "mistakes", `brokers file DIR/mistakes:
document 1 (CeleryBroker default/a), line 5: spec.url.valeu: Forbidden: unknown field: known here are file, secretKeyRef, value
document 2 (CeleryBroker default/b), line 10: spec.x: Forbidden: unknown field: known here are lookout, queues, rabbitmq, redis, sampling, tls, url, workers
document 2 (CeleryBroker default/b), line 10: spec.url.value: Forbidden: holds a password: put the URL into a file or a Secret, and use url.file or url.secretKeyRef`},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			_, err := brokersfile.Load(filepath.Join(dir, tt.file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(err.Error(), dir, "DIR")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadTellsWhichBrokerIsBad(t *testing.T) {
	cert, key := keyPair(t)
	_, otherKey := keyPair(t)
	files := map[string]string{
		"empty": " \n", "lines": "redis://:hunter2@h\nredis://h", "scheme": "hunter2://h", "amqp": "amqp://:hunter2@h", "sentinel": "sentinel://:hunter2@h",
		"params": "rediss://h?ssl_ca_certs=/no/such/file", "good": "redis://h", "cert": cert, "key": key, "otherkey": otherKey,
	}
	tests := []struct{ rule, spec, want string }{
		{"a missing URL", "url: {file: missing}", "spec.url.file: stat DIR/missing: no such file or directory: check the path and that this process may read it"},
		{"an empty URL", "url: {file: empty}", "spec.url.file: DIR/empty is empty"},
		{"a URL of two lines", "url: {file: lines}", "spec.url.file: DIR/lines holds more than one line"},
		{"a URL of an unknown scheme", "url: {file: scheme}", "spec.url.file: Invalid value: broker URL: unknown scheme: known are redis, rediss, redis+socket, sentinel, amqp and amqps"},
		{"a URL of RabbitMQ with settings of Redis", "url: {file: amqp}, redis: {separator: x}", "spec.redis: Forbidden: has no meaning with a URL of RabbitMQ: remove it"},
		{"a URL of Redis with settings of RabbitMQ", "url: {file: good}, rabbitmq: {loginMethod: PLAIN}", "spec.rabbitmq: Forbidden: has no meaning with a URL of Redis: remove it"},
		{"a login without its certificate", "url: {file: amqp}, rabbitmq: {loginMethod: EXTERNAL}", `spec.rabbitmq.loginMethod: Invalid value: "EXTERNAL": logs in with a client certificate: set spec.tls.certFile and spec.tls.keyFile`},
		{"a sentinel without a master", "url: {file: sentinel}", "spec.redis.masterName: Required value: a sentinel:// URL needs the name by which the Sentinels know the master"},
		{"a URL that names a missing file", "url: {file: params}", "TLS parameters of the URL: stat /no/such/file: no such file or directory: check the path and that this process may read it"},
		{"no sentinel password", "url: {file: good}, redis: {sentinel: {password: {file: missing}}}", "spec.redis.sentinel.password.file: stat DIR/missing: no such file or directory: check the path and that this process may read it"},
		{"no management password", "url: {file: amqp}, rabbitmq: {management: {username: m, password: {file: missing}}}", "spec.rabbitmq.management.password.file: stat DIR/missing: no such file or directory: check the path and that this process may read it"},
		{"authorities without a certificate", "url: {file: good}, tls: {caFile: key}", "spec.tls: DIR/key holds no certificate in PEM format"},
		{"the key of another certificate", "url: {file: good}, tls: {certFile: cert, keyFile: otherkey}", "spec.tls: certificate DIR/cert with key DIR/otherkey: tls: private key does not match public key"},
		{"a missing certificate beside a good management password", "url: {file: amqp}, tls: {caFile: missing}, rabbitmq: {management: {username: m, password: {file: good}}}", "spec.tls: stat DIR/missing: no such file or directory: check the path and that this process may read it"},
		{"two bad files", "url: {file: empty}, redis: {sentinel: {password: {file: lines}}}", "spec.url.file: DIR/empty is empty\nspec.redis.sentinel.password.file: DIR/lines holds more than one line"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range files {
				write(t, dir, name, text)
			}
			path := write(t, dir, "brokers.yaml", document("bad", tt.spec)+document("fine", "url: {file: good}"))
			brokers, err := brokersfile.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			bad, fine := brokers[0], brokers[1]
			if credentials := bad.URL + bad.SentinelPassword + bad.ManagementPassword; bad.Err == nil || credentials != "" {
				t.Fatalf("the bad broker has error %v, and credentials: %t", bad.Err, credentials != "")
			}
			if diff := cmp.Diff("CeleryBroker default/bad: "+tt.want, strings.ReplaceAll(bad.Err.Error(), dir, "DIR")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if fine.Err != nil || fine.URL != "redis://h" {
				t.Errorf("the other broker is harmed: URL %q, error %v", fine.URL, fine.Err)
			}
		})
	}
}
