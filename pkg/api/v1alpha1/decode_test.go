package v1alpha1_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// head begins a document whose spec follows, so that the spec's first line is
// line 5.
const head = `apiVersion: celery-hpa.io/v1alpha1
kind: CeleryBroker
metadata: {name: a, namespace: n}
spec:
`

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func TestDecodeBrokersReadsEveryField(t *testing.T) {
	got, err := v1alpha1.DecodeBrokers([]byte(head + `
  url: {file: /etc/celery/url}
  queues:
  - name: default
  - {name: "média:hd", alias: media-hd}
  sampling: {interval: 500ms, timeout: 1s, maxAge: 1m}
  lookout: {tracking: false, interval: 20ms, readsPerSecond: 100, sampleInterval: 3s}
  workers:
    heartbeats: true
    remoteControl: false
    fleets: [{deployment: d, queues: [default]}, {statefulset: s, queues: [a, b], acksLate: true}]
  tls: {caFile: ca.pem, certFile: cert.pem, keyFile: key.pem}
  redis:
    globalKeyPrefix: "p:"
    separator: "\x06\x16"
    unackedKey: u
    unackedIndexKey: ui
    masterName: m
    sentinel: {username: s, password: {file: sentinel}}
  rabbitmq:
    managementURL: "http://h:15672"
    loginMethod: AMQPLAIN
    management: {username: m, password: {file: management}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.CeleryBroker{{
		TypeMeta:   metav1.TypeMeta{APIVersion: "celery-hpa.io/v1alpha1", Kind: "CeleryBroker"},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n"},
		Spec: v1alpha1.CeleryBrokerSpec{
			URL:      v1alpha1.URLSource{File: "/etc/celery/url"},
			Queues:   []v1alpha1.Queue{{Name: "default"}, {Name: "média:hd", Alias: "media-hd"}},
			Sampling: v1alpha1.Sampling{Interval: duration(500 * time.Millisecond), Timeout: duration(time.Second), MaxAge: duration(time.Minute)},
			Lookout: v1alpha1.Lookout{
				Tracking: new(false), Interval: duration(20 * time.Millisecond), ReadsPerSecond: new(int32(100)), SampleInterval: duration(3 * time.Second),
			},
			Workers: v1alpha1.Workers{Heartbeats: new(true), RemoteControl: new(false), Fleets: []v1alpha1.Fleet{
				{Deployment: "d", Queues: []string{"default"}}, {StatefulSet: "s", Queues: []string{"a", "b"}, AcksLate: true},
			}},
			TLS: v1alpha1.TLS{CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem"},
			Redis: v1alpha1.Redis{
				GlobalKeyPrefix: "p:", Separator: "\x06\x16", UnackedKey: "u", UnackedIndexKey: "ui", MasterName: "m",
				Sentinel: v1alpha1.Sentinel{Username: "s", Password: v1alpha1.CredentialSource{File: "sentinel"}},
			},
			RabbitMQ: v1alpha1.RabbitMQ{
				ManagementURL: "http://h:15672", LoginMethod: "AMQPLAIN",
				Management: v1alpha1.Management{Username: "m", Password: v1alpha1.CredentialSource{File: "management"}},
			},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeBrokersCompletes(t *testing.T) {
	const document = "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: a}\nspec: {url: {value: 'redis://h'}"
	tests := []struct {
		rule, sampling string
		want           v1alpha1.Sampling
	}{
		{"without sampling", "", v1alpha1.Sampling{Interval: duration(time.Second), Timeout: duration(2 * time.Second), MaxAge: duration(10 * time.Second)}},
		{"empty sampling", "{}", v1alpha1.Sampling{Interval: duration(time.Second), Timeout: duration(2 * time.Second), MaxAge: duration(10 * time.Second)}},
		{"the maximum age is three intervals", "{interval: 5s}", v1alpha1.Sampling{Interval: duration(5 * time.Second), Timeout: duration(2 * time.Second), MaxAge: duration(15 * time.Second)}},
		{"the maximum age is at least 10 s", "{interval: 100ms}", v1alpha1.Sampling{Interval: duration(100 * time.Millisecond), Timeout: duration(2 * time.Second), MaxAge: duration(10 * time.Second)}},
		{"a maximum age of one interval is kept", "{interval: 1s, maxAge: 1s}", v1alpha1.Sampling{Interval: duration(time.Second), Timeout: duration(2 * time.Second), MaxAge: duration(time.Second)}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, err := v1alpha1.DecodeBrokers([]byte(document + ", sampling: " + tt.sampling + "}"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got[0].Spec.Sampling); diff != "" {
				t.Errorf("sampling (-want +got):\n%s", diff)
			}
			if got[0].Namespace != "default" {
				t.Errorf("namespace = %q, want default", got[0].Namespace)
			}
		})
	}
}

func TestDecodeBrokersTakesDocumentsApart(t *testing.T) {
	named := func(name string) string {
		return "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: " + name + "}\nspec: {url: {value: 'redis://h'}}\n"
	}
	tests := []struct {
		rule, data string
		want       []string
	}{
		{"one document", named("a"), []string{"a"}},
		{"without a last newline", strings.TrimSpace(named("a")), []string{"a"}},
		{"two documents", named("a") + "---\n" + named("b"), []string{"a", "b"}},
		{"empty documents and comments are left out", "# only a comment\n---\n\n---\n" + named("a") + "--- # more\n---\n# end\n", []string{"a"}},
		{"lines that end in CR LF", strings.ReplaceAll(named("a")+"---\n"+named("b"), "\n", "\r\n"), []string{"a", "b"}},
		{"an end marker", named("a") + "...\n" + named("b"), []string{"a", "b"}},
		{"a byte order mark", "\ufeff" + named("a"), []string{"a"}},
		{"JSON", `{"apiVersion": "celery-hpa.io/v1alpha1", "kind": "CeleryBroker", "metadata": {"name": "a"}, "spec": {"url": {"value": "redis://h"}}}`, []string{"a"}},
		{"the same name in two namespaces", named("a") + "---\n" + named("a, namespace: other"), []string{"a", "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			brokers, err := v1alpha1.DecodeBrokers([]byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range brokers {
				got = append(got, brokers[i].Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

// Where a password could be shown, the password is hunter2.
func TestDecodeBrokersRefuses(t *testing.T) {
	const in = "document 1 (CeleryBroker n/a), line "
	const url = "  url: {value: 'redis://h'}\n"
	tests := []struct {
		rule, data string
		want       []string
	}{
		{"an empty file", "# nothing\n", []string{"the file holds no CeleryBroker: it needs one document at least, with apiVersion celery-hpa.io/v1alpha1 and kind CeleryBroker"}},
		{"what is not UTF-8", "a: \xff", []string{"not UTF-8 text: save the file as UTF-8"}},
		{"an unknown field", head + url + "  samplng: {}\n", []string{in + `6: spec.samplng: Forbidden: unknown field: known here are lookout, queues, rabbitmq, redis, sampling, tls, url, workers`}},
		{"an unknown field in place of the one required", head + "  url: {valeu: x}\n", []string{in + `5: spec.url.valeu: Forbidden: unknown field: known here are file, secretKeyRef, value`}},
		{"an unknown field in a list", head + url + "  queues:\n  - name: a\n    alais: b\n", []string{in + `8: spec.queues[0].alais: Forbidden: unknown field: known here are alias, name`}},
		{"a field of another case", head + url + "  Sampling: {}\n", []string{in + `6: spec.Sampling: Forbidden: unknown field: known here are lookout, queues, rabbitmq, redis, sampling, tls, url, workers`}},
		{"a field given twice", head + url + "  sampling: {interval: 1s, interval: 2s}\n", []string{in + `6: spec.sampling.interval: Duplicate value: the field is given twice: lines 6 and 6`}},
		{"a merge key", head + url + "  sampling: {<<: {interval: 1s}}\n", []string{in + `6: spec.sampling.(no field name): Forbidden: unknown field: known here are interval, maxAge, timeout`}},
		{"an anchor", head + url + "  sampling: &s {interval: 1s}\n", []string{in + `6: spec.sampling: Invalid value: anchors and aliases are not supported: write the value out, or put it in quotes if it begins with * or &`}},
		{"a value that is taken for an alias", head + "  url: {value: *hunter2 }\n", []string{`document 1: from line 1: anchors and aliases are not supported: write the value out, or put it in quotes if it begins with * or &`}},
		{"a text in place of a mapping", head + "  url: redis://:hunter2@h\n", []string{in + `5: spec.url: Invalid value: must be a mapping with fields of: file, secretKeyRef, value`}},
		{"a URL in place of a field", head + "  url: {'redis://:hunter2@h': }\n", []string{in + `5: spec.url.(no field name): Forbidden: unknown field: known here are file, secretKeyRef, value`}},
		{"a mapping in place of a list", head + url + "  queues: {name: a}\n", []string{in + `6: spec.queues: Invalid value: must be a list`}},
		{"a number in place of a text", head + url + "  queues: [{name: 7}]\n", []string{in + `6: spec.queues[0].name: Invalid value: must be a string: put it in quotes`}},
		{"a number in place of a duration", head + url + "  sampling: {interval: 1}\n", []string{in + `6: spec.sampling.interval: Invalid value: must be a duration such as 500ms, 10s or 2m`}},
		{"a list in place of a document", "- a\n", []string{`document 1, line 1: document: Invalid value: must be a mapping with fields of: apiVersion, kind`}},
		{"what is not YAML", "---\n# one\n---\n\nspec: [hunter2\n", []string{`document 1: near line 4: not YAML: did not find expected ',' or ']'`}},
		{"another kind", "\napiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}\n", []string{
			`document 1, line 2: apiVersion: Unsupported value: "apps/v1": supported values: "celery-hpa.io/v1alpha1"`,
			`document 1, line 3: kind: Unsupported value: "Deployment": supported values: "CeleryBroker"`,
		}},
		{"another version", strings.Replace(head, "v1alpha1", "v1", 1) + url, []string{`document 1, line 1: apiVersion: Unsupported value: "celery-hpa.io/v1": supported values: "celery-hpa.io/v1alpha1"`}},
		{"a list of brokers", "apiVersion: v1\nkind: List\nitems: []\n", []string{`document 1, line 2: kind: Forbidden: lists are not supported: write the items as documents separated by lines of ---`}},
		{"two brokers of one name", head + url + "---\n" + head + url, []string{`document 2 (CeleryBroker n/a), line 9: metadata.name: Duplicate value: "a": document 1 has a broker of this name in namespace "n" already`}},
		{"mistakes of several documents, in the order of lines", head + "  tls: 1\n  url: {}\n---\n[\n---\n" + head + url + "  x: 1\n", []string{
			in + `5: spec.tls: Invalid value: must be a mapping with fields of: caFile, caSecretKeyRef, certFile, certSecretKeyRef, keyFile, keySecretKeyRef`,
			in + `6: spec.url: Required value: give exactly one of value, file, secretKeyRef`,
			`document 2: near line 8: not YAML: did not find expected node content`,
			`document 3 (CeleryBroker n/a), line 12: metadata.name: Duplicate value: "a": document 1 has a broker of this name in namespace "n" already`,
			`document 3 (CeleryBroker n/a), line 15: spec.x: Forbidden: unknown field: known here are lookout, queues, rabbitmq, redis, sampling, tls, url, workers`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			brokers, err := v1alpha1.DecodeBrokers([]byte(tt.data))
			if err == nil {
				t.Fatalf("decoded %+v, want an error", brokers)
			}
			if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzDecodeBrokers(f *testing.F) {
	f.Add([]byte(head + "  url: {value: 'redis://h'}\n  sampling: {interval: 1s}\n---\n---\n# c\n"))
	f.Add([]byte(head + "  url: {file: /x}\n  queues: [{name: a, alias: b}, {name: !!binary aGk=}]\n...\n%YAML 1.1\n---\n"))
	f.Add([]byte("a: &a [*a, *a]\n<<: *a\n? [x]\n: y"))
	f.Add([]byte(head + "  url: {value: 'amqps://h/%2F?login_method=EXTERNAL'}\n  rabbitmq: {loginMethod: PLAIN, managementURL: 'http://h/p', management: {username: u}}"))
	f.Add([]byte(head + "  tls: {certFile: ''}\n  redis: {sentinel: {password: {secretKeyRef: {}}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		brokers, err := v1alpha1.DecodeBrokers(data)
		if (err == nil) == (len(brokers) == 0) {
			t.Fatalf("%d brokers with error %v: want brokers or an error", len(brokers), err)
		}
		again, _ := v1alpha1.DecodeBrokers(data)
		if diff := cmp.Diff(brokers, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the second decoding differs:\n%s", diff)
		}
		for i := range brokers {
			if errs := v1alpha1.Validate(&brokers[i], v1alpha1.FromFile); len(errs) > 0 {
				t.Errorf("broker %d is not valid: %v", i, errs)
			}
		}
	})
}
