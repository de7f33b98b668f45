package brokersfile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// Broker is a CeleryBroker together with what it refers to. It is not changed
// after it was handed out. It prints and logs as its name alone; URL,
// SentinelPassword and ManagementPassword are credentials.
type Broker struct {
	// CeleryBroker is the document with its defaults. Paths of files in it are
	// absolute.
	v1alpha1.CeleryBroker
	// URL is the broker's URL as Celery has it, with its credentials. Empty if
	// Err is set.
	URL string `json:"-"`
	// SentinelPassword is the Sentinels' password, empty where there is none.
	SentinelPassword string `json:"-"`
	// ManagementPassword is that of RabbitMQ's management API, empty where it is
	// the URL's.
	ManagementPassword string `json:"-"`
	// Fingerprint is different whenever anything about the broker is: the
	// document, the URL, a password, the content of a certificate's or key's
	// file, the error. It tells nothing about them, and is to be compared with
	// fingerprints from the same Watcher only.
	Fingerprint string
	// Err says why the broker cannot be used: a file that it refers to cannot be
	// read or does not hold what it should. It shows no credential.
	Err error `json:"-"`
}

// String returns the kind, namespace and name.
func (b Broker) String() string {
	return v1alpha1.Kind + " " + b.Namespace + "/" + b.Name
}

// Format prints String for every verb, so that no verb shows a credential.
func (b Broker) Format(s fmt.State, _ rune) {
	// A failed write to a fmt.State is reported by whoever owns its writer.
	_, _ = io.WriteString(s, b.String())
}

// LogValue returns String.
func (b Broker) LogValue() slog.Value { return slog.StringValue(b.String()) }

// fingerprint digests b and the content of the files behind it with a key that
// nobody else has, without which a short password could be guessed from it.
func fingerprint(key []byte, b Broker, contents []string) string {
	// Strings and durations always marshal.
	document, _ := json.Marshal(b.Spec)
	mac := hmac.New(sha256.New, key)
	// %q keeps the parts apart and differs for bytes that are not UTF-8.
	fmt.Fprintf(mac, "%q %q %q %q %q", b.String(), document, []string{b.URL, b.SentinelPassword, b.ManagementPassword}, contents, errorText(b.Err))
	return hex.EncodeToString(mac.Sum(nil))
}

// errorText is the text of err, empty without one.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
