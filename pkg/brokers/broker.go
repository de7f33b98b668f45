package brokers

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Broker is a CeleryBroker together with what it refers to. It is not changed
// after it was handed out. It prints and logs as its name alone; URL, TLS,
// SentinelPassword and ManagementPassword are credentials.
type Broker struct {
	// CeleryBroker is the document with its defaults. Paths of files in it are
	// absolute.
	v1alpha1.CeleryBroker
	// URL is the broker's URL as Celery has it, with its credentials. Empty if
	// Err is set.
	URL string `json:"-"`
	// TLS is what spec.tls refers to.
	TLS PEM `json:"-"`
	// SentinelPassword is the Sentinels' password, empty where there is none.
	SentinelPassword string `json:"-"`
	// ManagementPassword is that of RabbitMQ's management API, empty where it is
	// the URL's.
	ManagementPassword string `json:"-"`
	// Fingerprint is different whenever anything about the broker is: the
	// document, the URL, a password, the content of a certificate's or key's
	// file, the error. It tells nothing about them, and is to be compared with
	// fingerprints from the same Resolver only.
	Fingerprint string
	// Err says why the broker cannot be used: something that it refers to cannot be
	// read or does not hold what it should. It shows no credential.
	Err error `json:"-"`
}

// PEM is the content of PEM files: authorities, client certificate and its key. Each may
// be empty.
type PEM struct{ CA, Cert, Key []byte }

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

// KeepGood returns the brokers found, each bad one replaced by what it was before if
// that was good: one that has an error now goes on with what it had. One that was deleted
// and made anew under its name has nothing.
func KeepGood(before, found []Broker) []Broker {
	good := map[queue.BrokerRef]Broker{}
	for _, b := range before {
		if b.Err == nil {
			good[b.Ref()] = b
		}
	}
	kept := make([]Broker, len(found))
	for i, b := range found {
		kept[i] = b
		if old, wasGood := good[b.Ref()]; wasGood && b.Err != nil && old.UID == b.UID {
			kept[i] = old
		}
	}
	return kept
}

// Equal tells whether a and b are the same brokers in the same order.
func Equal(a, b []Broker) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Fingerprint != b[i].Fingerprint {
			return false
		}
	}
	return true
}
