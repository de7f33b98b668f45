package brokers_test

import (
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

func TestAFingerprintIsOfAllThatABrokerIs(t *testing.T) {
	const (
		named  = "metadata: {name: a}\n"
		spec   = "spec: {url: {file: url}, queues: [{name: default}]}"
		server = "redis://one"
	)
	resolver := brokers.NewResolver(v1alpha1.FromFile)
	fingerprint := func(document, url string) string {
		t.Helper()
		decoded, err := v1alpha1.DecodeBrokers([]byte("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\n" + document))
		if err != nil {
			t.Fatal(err)
		}
		b := resolver.Resolve(decoded[0], func(brokers.Reference) ([]byte, error) { return []byte(url), nil })
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		return b.Fingerprint
	}
	first := fingerprint(named+spec, server)
	for change, other := range map[string]string{
		"its name":          fingerprint("metadata: {name: b}\n"+spec, server),
		"a queue":           fingerprint(named+"spec: {url: {file: url}, queues: [{name: other}]}", server),
		"an alias":          fingerprint(named+"spec: {url: {file: url}, queues: [{name: default, alias: other}]}", server),
		"an interval":       fingerprint(named+spec[:len(spec)-1]+", sampling: {interval: 2s}}", server),
		"where the URL is":  fingerprint(named+"spec: {url: {file: other}, queues: [{name: default}]}", server),
		"what is in a file": fingerprint(named+spec, "redis://two"),
	} {
		if other == first {
			t.Errorf("%s is another, and the fingerprint the same", change)
		}
	}
	if fingerprint(named+spec, server) != first {
		t.Error("nothing is another, and the fingerprint not the same")
	}
	resolver = brokers.NewResolver(v1alpha1.FromFile)
	if fingerprint(named+spec, server) == first {
		t.Error("the key is another, and the fingerprint the same: a password could be guessed from it")
	}
}
