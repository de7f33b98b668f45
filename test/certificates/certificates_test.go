package certificates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

func TestCertificates(t *testing.T) {
	f := newFixture(t)
	t.Run("a right that is missing is named", f.namesRights)
	t.Run("a Secret that was made to be filled", f.fills)
	t.Run("from nothing", f.fromNothing)
	t.Run("what was spoilt while nobody ran", f.repairsAtStart)
	t.Run("two replicas", func(t *testing.T) {
		f.deleteSecret(t) // which is good for years
		a, b := f.startReplica(t, "a", hasty()), f.startReplica(t, "b", hasty())
		f.awaitAnswers(t)
		t.Run("renewals under load", func(t *testing.T) { f.renews(t, a, b) })
		t.Run("a Secret that is spoilt under load", func(t *testing.T) { f.repairs(t, a, b) })
		t.Run("a Secret that is deleted under load", f.remakes)
	})
	t.Run("only what is ours, and only what differs, is written", f.writesWhatDiffers)
	t.Run("what is another server's is left alone", f.leavesOthersAlone)
	t.Run("without webhooks", f.needsNoWebhooks)
	f.checkNothingWasSaid(t)
	f.checkEverybodyWasAsked(t)
}

func (f *fixture) namesRights(t *testing.T) {
	f.apply(t, someRights)
	for _, tt := range []struct {
		user  string
		ready bool
		want  string
	}{
		{"nobody", false, "get Secret celery-hpa/celery-hpa-serving-cert: the right to get secrets in namespace celery-hpa is missing, see docs/install.md"},
		{"reader", false, "create Secret celery-hpa/celery-hpa-serving-cert: the right to create secrets in namespace celery-hpa is missing"},
		{"writer", true, "get APIService v1beta1.external.metrics.k8s.io: the right to get apiservices.apiregistration.k8s.io is missing"},
		{"writer", true, "get ValidatingWebhookConfiguration celery-hpa: the right to get validatingwebhookconfigurations.admissionregistration.k8s.io is missing"},
	} {
		t.Run(tt.user, func(t *testing.T) {
			config, err := f.cluster.ConfigFor(tt.user)
			must(t, err)
			log := &servers.Transcript{}
			keeper := newKeeper(t, config, log, true)
			for range 2 {
				keeper.Prepare(t.Context())
			}
			if log.Count(tt.want) != 1 || log.Count("level=WARN") < 1 {
				t.Errorf("want it said once that %s:\n%s", tt.want, log)
			}
			if err := keeper.Ready(); (err == nil) != tt.ready {
				t.Errorf("ready: %v, want %t", err, tt.ready)
			}
			certificate, key := keeper.CurrentCertKeyContent()
			if _, err := tls.X509KeyPair(certificate, key); err != nil {
				t.Errorf("there is nothing to serve: %v", err)
			}
		})
	}
	f.deleteSecret(t)
}

// newKeeper makes one that leads.
func newKeeper(t *testing.T, config *rest.Config, log *servers.Transcript, leads bool) *certificates.Keeper {
	t.Helper()
	options := usual()
	options.Namespace = namespace
	keeper, err := certificates.NewKeeper(config, options, func() bool { return leads },
		slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
	must(t, err)
	return keeper
}

// someRights are parts of those of the manifests.
const someRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: celery-hpa}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: celery-hpa}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: writer, namespace: celery-hpa}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: "celery-hpa:serving-cert"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: writer}]
`

// fills has a replica find the Secret as the chart makes it: it does not wait for the one
// that leads.
func (f *fixture) fills(t *testing.T) {
	secrets, log := f.admin.CoreV1().Secrets(namespace), &servers.Transcript{}
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretName}}
	_, err := secrets.Create(t.Context(), empty, metav1.CreateOptions{})
	must(t, err)
	newKeeper(t, f.cluster.RESTConfig(), log, false).Prepare(t.Context())
	if f.secret(t).Data["tls.crt"] == nil || log.Count("level=WARN") != 0 {
		t.Errorf("it is not filled, or not quietly:\n%s", log)
	}
	must(t, secrets.Delete(t.Context(), secretName, metav1.DeleteOptions{}))
}

func (f *fixture) fromNothing(t *testing.T) {
	r := f.startReplica(t, "first", usual())
	f.awaitAnswers(t)
	f.awaitOrder(t)
	f.checkMetric(t)
	if kind := f.secret(t).Type; kind != corev1.SecretTypeTLS {
		t.Errorf("the Secret is of type %s", kind)
	}
	if n := r.log.Count("Made an authority and a serving certificate"); n != 1 {
		t.Errorf("it is said %d times that a certificate was made, want once", n)
	}
	if n := r.log.Count("level=WARN"); n != 0 {
		t.Errorf("%d warnings:\n%s", n, r.log)
	}
}

// checkMetric compares /metrics with what is in the Secret.
func (f *fixture) checkMetric(t *testing.T) {
	t.Helper()
	bundles, err := f.trusted(t.Context())
	must(t, err)
	config := f.cluster.RESTConfig()
	config.Host, config.ServerName, config.CAData = fmt.Sprintf("https://127.0.0.1:%d", f.port), servingName, bundles[0]
	direct, err := kubernetes.NewForConfig(config)
	must(t, err)
	text, err := direct.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	must(t, err)
	block, _ := pem.Decode(f.secret(t).Data["tls.crt"])
	serving, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	const name = "celery_hpa_serving_certificate_expiry_timestamp_seconds"
	_, value, _ := strings.Cut(string(text), "\n"+name+" ")
	value, _, _ = strings.Cut(value, "\n")
	if got, err := strconv.ParseFloat(value, 64); err != nil || int64(got) != serving.NotAfter.Unix() {
		t.Errorf("%s is %q, want %d", name, value, serving.NotAfter.Unix())
	}
}

// awaitAnswers blocks until celery-hpa answers the API server: the APIService is
// available, and the webhooks are trusted.
func (f *fixture) awaitAnswers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, f.cluster.AwaitExternalMetrics(ctx))
	eventually.Succeeds(t, patience, "celery-hpa answers", func() error {
		return errors.Join(f.readMetric(t.Context()), f.askForZero(t.Context()))
	})
}

// spoil changes the Secret, whoever else does.
func (f *fixture) spoil(t *testing.T, change func(data map[string][]byte)) {
	t.Helper()
	for {
		secret := f.secret(t)
		change(secret.Data)
		_, err := f.admin.CoreV1().Secrets(namespace).Update(t.Context(), secret, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			must(t, err)
			return
		}
	}
}

func (f *fixture) deleteSecret(t *testing.T) {
	t.Helper()
	must(t, f.admin.CoreV1().Secrets(namespace).Delete(t.Context(), secretName, metav1.DeleteOptions{}))
}

func garbage(data map[string][]byte) {
	for name := range data {
		data[name] = []byte("-----BEGIN NOTHING-----")
	}
}

func (f *fixture) repairsAtStart(t *testing.T) {
	f.spoil(t, garbage)
	r := f.startReplica(t, "second", usual())
	f.awaitAnswers(t)
	f.awaitOrder(t)
	if n := r.log.Count(`level=WARN msg="Made an authority and a serving certificate anew`); n != 1 {
		t.Errorf("it is said %d times that all was made anew, want once:\n%s", n, r.log)
	}
	if n := r.log.Count("Unhandled Error"); n != 0 {
		t.Errorf("a library complains:\n%s", r.log)
	}
}

// renews goes on until serving certificates and authorities have changed several times.
// Meanwhile it is another replica that leads.
func (f *fixture) renews(t *testing.T, replicas ...*replica) {
	said := func(text string) int {
		n := 0
		for _, r := range replicas {
			n += r.log.Count(text)
		}
		return n
	}
	l := f.startLoad(t)
	eventually.Succeeds(t, patience, "an authority is gone", func() error { return atLeast(1, said("Trusting the old authority no more")) })
	f.releaseLease(t)
	eventually.Succeeds(t, patience, "two authorities are gone", func() error { return atLeast(2, said("Trusting the old authority no more")) })
	l.end(t)
	if n := said("Renewed the serving certificate"); n < 4 {
		t.Errorf("%d renewals, want 4 at least", n)
	}
	if n := said("level=WARN"); n != 0 {
		t.Errorf("%d warnings", n)
	}
}

func atLeast(want, got int) error {
	if got < want {
		return fmt.Errorf("%d, want %d", got, want)
	}
	return nil
}

// releaseLease has whoever leads lead no more. Anybody may follow.
func (f *fixture) releaseLease(t *testing.T) {
	t.Helper()
	leases := f.admin.CoordinationV1().Leases(namespace)
	for {
		lease, err := leases.Get(t.Context(), "celery-hpa", metav1.GetOptions{})
		must(t, err)
		lease.Spec.HolderIdentity = new("")
		if _, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			must(t, err)
			return
		}
	}
}

func (f *fixture) repairs(t *testing.T, replicas ...*replica) {
	l := f.startLoad(t)
	for _, tt := range []struct {
		rule   string
		change func(data map[string][]byte)
	}{
		{"garbage", garbage},
		{"no authority", func(d map[string][]byte) { delete(d, "ca.crt") }},
		{"no key of the authority", func(d map[string][]byte) { delete(d, "ca.key") }},
		{"the key of another", func(d map[string][]byte) { d["tls.key"] = d["ca.key"] }},
	} {
		said := func() int {
			n := 0
			for _, r := range replicas {
				n += r.log.Count("Repaired the Secret")
			}
			return n
		}
		before := said()
		f.spoil(t, tt.change)
		eventually.Succeeds(t, patience, tt.rule+" is repaired", func() error { return atLeast(before+1, said()) })
	}
	f.awaitOrder(t)
	l.end(t)
}

func (f *fixture) remakes(t *testing.T) {
	l := f.startLoad(t)
	before := f.secret(t)
	f.deleteSecret(t)
	eventually.Succeeds(t, patience, "there is a Secret again", func() error {
		found, err := f.admin.CoreV1().Secrets(namespace).Get(t.Context(), secretName, metav1.GetOptions{})
		if err == nil && (found.UID == before.UID || string(found.Data["ca.key"]) == string(before.Data["ca.key"])) {
			return errors.New("it is the same")
		}
		return err
	})
	f.awaitOrder(t)
	l.end(t)
}

// checkNothingWasSaid looks for keys in all that replicas have logged.
func (f *fixture) checkNothingWasSaid(t *testing.T) {
	t.Helper()
	data := f.secret(t).Data
	for _, log := range f.logs {
		text := log.String()
		if strings.Contains(text, "PRIVATE KEY") {
			t.Error("a key was logged")
		}
		for _, name := range []string{"ca.key", "tls.key"} {
			if strings.Contains(text, base64.StdEncoding.EncodeToString(data[name])) {
				t.Errorf("%s was logged", name)
			}
		}
	}
}

// checkEverybodyWasAsked asks the API server whether it has ever let something pass
// because a webhook could not be asked. It counts only failures, so that none have no
// series.
func (f *fixture) checkEverybodyWasAsked(t *testing.T) {
	t.Helper()
	text, err := f.cluster.Kubectl(t.Context(), "get", "--raw", "/metrics")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "apiserver_admission_webhook_fail_open_count") {
			t.Errorf("a webhook could not be asked: %s", line)
		}
	}
}
