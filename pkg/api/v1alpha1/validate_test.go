package v1alpha1_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// valid returns a complete broker without a mistake, after the changes of edit.
func valid(edit func(*v1alpha1.CeleryBroker)) *v1alpha1.CeleryBroker {
	b := &v1alpha1.CeleryBroker{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n"},
		Spec:       v1alpha1.CeleryBrokerSpec{URL: v1alpha1.URLSource{Value: "redis://h"}},
	}
	edit(b)
	v1alpha1.SetDefaults(b)
	return b
}

// texts returns the messages of errs.
func texts(errs field.ErrorList) []string {
	var all []string
	for _, e := range errs {
		all = append(all, e.Error())
	}
	return all
}

// Where a password could be shown, the password is hunter2.
func TestValidateInFile(t *testing.T) {
	ref := &v1alpha1.SecretKeyRef{Name: "s", Key: "k"}
	tests := []struct {
		rule string
		edit func(*v1alpha1.CeleryBroker)
		want []string
	}{
		{"nothing is wrong", func(*v1alpha1.CeleryBroker) {}, nil},
		{"no name", func(b *v1alpha1.CeleryBroker) { b.Name = "" }, []string{"metadata.name: Required value: the broker's name"}},
		{"a name that no label can hold", func(b *v1alpha1.CeleryBroker) { b.Name = strings.Repeat("a", 64) }, []string{"metadata.name: Too long: may not be more than 63 bytes"}},
		{"another kind", func(b *v1alpha1.CeleryBroker) { b.Kind = "Broker" }, []string{`kind: Unsupported value: "Broker": supported values: "CeleryBroker"`}},

		{"no URL", func(b *v1alpha1.CeleryBroker) { b.Spec.URL = v1alpha1.URLSource{} }, []string{"spec.url: Required value: give exactly one of value, file, secretKeyRef"}},
		{"two URLs", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.File = "f" }, []string{"spec.url: Forbidden: give exactly one of value, file, secretKeyRef, not several"}},
		{"a URL in a Secret", func(b *v1alpha1.CeleryBroker) { b.Spec.URL = v1alpha1.URLSource{SecretKeyRef: ref} }, []string{"spec.url.secretKeyRef: Forbidden: only in a cluster: use a file"}},
		{"an inline password", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "redis://:hunter2@h" }, []string{"spec.url.value: Forbidden: holds a password: put the URL into a file or a Secret, and use url.file or url.secretKeyRef"}},
		{"a user without a password", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "redis://user@h" }, nil},
		{"an unknown scheme", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "hunter2://h" }, []string{"spec.url.value: Invalid value: broker URL: unknown scheme: known are redis, rediss, redis+socket, sentinel, amqp and amqps"}},
		{"no host", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "redis://:hunter2@/0" }, []string{"spec.url.value: Invalid value: broker URL: no host: name the server, as in redis://host:6379/0 or amqp://host:5672/vhost"}},
		{"a database by name", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "redis://h/hunter2" }, []string{"spec.url.value: Invalid value: broker URL: the path must be the number of a database, as in redis://host:6379/0"}},
		{"RabbitMQ", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "amqp://h" }, nil},
		{"RabbitMQ with an inline password", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "amqp://u:hunter2@h" }, []string{"spec.url.value: Forbidden: holds a password: put the URL into a file or a Secret, and use url.file or url.secretKeyRef"}},
		{"RabbitMQ with settings of Redis", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.Redis.Separator = "amqp://h", ":"
		}, []string{"spec.redis: Forbidden: has no meaning with a URL of RabbitMQ: remove it"}},
		{"workers to ask that are not heard", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Workers = v1alpha1.Workers{Heartbeats: new(false), RemoteControl: new(true)}
		}, []string{"spec.workers.remoteControl: Forbidden: whom to ask is known by heartbeats alone: leave workers.heartbeats on"}},
		{"fleets that are none", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Workers.Fleets = []v1alpha1.Fleet{
				{Queues: []string{"a"}}, {Deployment: "d", StatefulSet: "s", Queues: []string{"a"}}, {Deployment: "w"}, {Deployment: "w", Queues: []string{""}},
			}
		}, []string{
			"spec.workers.fleets[0]: Required value: give exactly one of deployment, statefulset",
			"spec.workers.fleets[1]: Required value: give exactly one of deployment, statefulset",
			"spec.workers.fleets[2].queues: Required value: the names of the queues that the workers serve",
			"spec.workers.fleets[3].queues: Required value: the names of the queues that the workers serve",
			`spec.workers.fleets[3]: Duplicate value: "w"`,
		}},
		{"quorum queues that tell too seldom", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value = "amqp://rabbitmq"
			b.Spec.RabbitMQ.QuorumTickInterval = &metav1.Duration{Duration: 2 * time.Hour}
		}, []string{`spec.rabbitmq.quorumTickInterval: Invalid value: "2h0m0s": must be from 100ms to 1h0m0s`}},
		{"Redis with settings of RabbitMQ", func(b *v1alpha1.CeleryBroker) { b.Spec.RabbitMQ.LoginMethod = "EXTERNAL" }, []string{"spec.rabbitmq: Forbidden: has no meaning with a URL of Redis: remove it"}},
		{"Sentinel without a master", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "sentinel://h" }, []string{"spec.redis.masterName: Required value: a sentinel:// URL needs the name by which the Sentinels know the master"}},
		{"Sentinel with a master", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "sentinel://h"; b.Spec.Redis.MasterName = "m" }, nil},

		{"a queue without a name", func(b *v1alpha1.CeleryBroker) { b.Spec.Queues = []v1alpha1.Queue{{Alias: "x"}} }, []string{"spec.queues[0].name: Required value: the queue's name"}},
		{"a queue given twice", func(b *v1alpha1.CeleryBroker) { b.Spec.Queues = []v1alpha1.Queue{{Name: "q"}, {Name: "q", Alias: "r"}} }, []string{`spec.queues[1].name: Duplicate value: "q"`}},
		{"two queues of one alias", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Queues = []v1alpha1.Queue{{Name: "q", Alias: "x"}, {Name: "r", Alias: "x"}}
		}, []string{`spec.queues[1].alias: Duplicate value: "x": queue "r" would have the same label "x" as queue "q": give one of them another alias`}},
		{"an alias that is another queue's name", func(b *v1alpha1.CeleryBroker) { b.Spec.Queues = []v1alpha1.Queue{{Name: "q"}, {Name: "r", Alias: "q"}} }, []string{`spec.queues[1].alias: Duplicate value: "q": queue "r" would have the same label "q" as queue "q": give one of them another alias`}},
		{"names that have the same label", func(b *v1alpha1.CeleryBroker) { b.Spec.Queues = []v1alpha1.Queue{{Name: "a:b"}, {Name: "a_b"}} }, []string{`spec.queues[1].name: Duplicate value: "a_b": queue "a_b" would have the same label "a_b" as queue "a:b": give one of them another alias`}},
		{"an alias tells such names apart", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Queues = []v1alpha1.Queue{{Name: "a:b", Alias: "a-b"}, {Name: "a_b"}}
		}, nil},
		{"an alias that is its queue's name", func(b *v1alpha1.CeleryBroker) { b.Spec.Queues = []v1alpha1.Queue{{Name: "q", Alias: "q"}} }, nil},
		{"an alias too long for a label", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Queues = []v1alpha1.Queue{{Name: "q", Alias: strings.Repeat("a", 64)}}
		}, []string{`spec.queues[0].alias: Invalid value: "` + strings.Repeat("a", 64) + `": must be no more than 63 bytes`}},

		{"a negative interval", func(b *v1alpha1.CeleryBroker) { b.Spec.Sampling.Interval = duration(-time.Second) }, []string{`spec.sampling.interval: Invalid value: "-1s": must be from 100ms to 1h0m0s`}},
		{"an interval of zero", func(b *v1alpha1.CeleryBroker) { b.Spec.Sampling.Interval = duration(0) }, []string{`spec.sampling.interval: Invalid value: "0s": must be from 100ms to 1h0m0s`}},
		{"the longest duration there is", func(b *v1alpha1.CeleryBroker) { b.Spec.Sampling.Interval = duration(1<<63 - 1) }, []string{`spec.sampling.interval: Invalid value: "2562047h47m16.854775807s": must be from 100ms to 1h0m0s`}},
		{"a lookout that never rests", func(b *v1alpha1.CeleryBroker) { b.Spec.Lookout.Interval = duration(time.Millisecond) }, []string{`spec.lookout.interval: Invalid value: "1ms": must be from 10ms to 1m0s`}},
		{"a lookout that reads nothing", func(b *v1alpha1.CeleryBroker) { b.Spec.Lookout.ReadsPerSecond = new(int32(0)) }, []string{`spec.lookout.readsPerSecond: Invalid value: 0: must be from 1 to 1000000`}},
		{"samples of sleepers that are more frequent than others", func(b *v1alpha1.CeleryBroker) { b.Spec.Lookout.SampleInterval = duration(500 * time.Millisecond) }, []string{`spec.lookout.sampleInterval: Invalid value: "500ms": must be from 1s to 10s`}},
		{"a time-out of zero", func(b *v1alpha1.CeleryBroker) { b.Spec.Sampling.Timeout = duration(0) }, []string{`spec.sampling.timeout: Invalid value: "0s": must be from 10ms to 1h0m0s`}},
		{"a maximum age shorter than the interval", func(b *v1alpha1.CeleryBroker) {
			b.Spec.Sampling = v1alpha1.Sampling{Interval: duration(time.Minute), MaxAge: duration(time.Second)}
		}, []string{`spec.sampling.maxAge: Invalid value: "1s": must be from 1m0s to 24h0m0s`}},

		{"a certificate without a key", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.TLS.CertFile = "rediss://h", "c"
		}, []string{"spec.tls.keyFile: Required value: a client certificate needs its private key"}},
		{"a key without a certificate", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.TLS.KeyFile = "rediss://h", "k"
		}, []string{"spec.tls.certFile: Required value: a private key needs its client certificate"}},
		{"authorities alone", func(b *v1alpha1.CeleryBroker) { b.Spec.TLS.CAFile = "c" }, nil},
		{"authorities in a Secret", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value, b.Spec.TLS.CASecretKeyRef = "rediss://h", ref }, []string{"spec.tls.caSecretKeyRef: Forbidden: only in a cluster: use a file"}},

		{"a Sentinels' user without a password", func(b *v1alpha1.CeleryBroker) { b.Spec.Redis.Sentinel.Username = "u" }, []string{"spec.redis.sentinel.password: Required value: a user name needs a password"}},
		{"an unknown login method", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqp://h", "plain"
		}, []string{`spec.rabbitmq.loginMethod: Unsupported value: "plain": supported values: "PLAIN", "AMQPLAIN", "EXTERNAL"`}},
		{"EXTERNAL without a certificate", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqps://h", "EXTERNAL"
		}, []string{`spec.rabbitmq.loginMethod: Invalid value: "EXTERNAL": logs in with a client certificate: set spec.tls.certFile and spec.tls.keyFile`}},
		{"EXTERNAL without a certificate, in the URL", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqps://h?login_method=EXTERNAL", "PLAIN"
		}, []string{`spec.rabbitmq.loginMethod: Invalid value: "EXTERNAL": logs in with a client certificate: set spec.tls.certFile and spec.tls.keyFile`}},
		{"EXTERNAL with a certificate of one URL of two", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value = "amqps://h?login_method=EXTERNAL&ssl_certfile=c;amqps://i"
		}, []string{`spec.rabbitmq.loginMethod: Invalid value: "EXTERNAL": logs in with a client certificate: set spec.tls.certFile and spec.tls.keyFile`}},
		{"EXTERNAL with a certificate", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.TLS = "amqp://h?login_method=EXTERNAL", v1alpha1.TLS{CertFile: "c", KeyFile: "k"}
		}, nil},
		{"EXTERNAL with a certificate in the URL", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqps://h?ssl_certfile=c", "EXTERNAL"
		}, nil},
		{"a login method of the URL goes before EXTERNAL", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqp://h?login_method=PLAIN", "EXTERNAL"
		}, nil},

		{"a management user without a password", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.Management.Username = "amqp://h", "u"
		}, []string{"spec.rabbitmq.management.password: Required value: a user name needs a password"}},
		{"a management password without a user", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.Management.Password.File = "amqp://h", "f"
		}, []string{"spec.rabbitmq.management.username: Required value: a password needs its user name"}},
		{"a management user with a password", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.Management.Username, b.Spec.RabbitMQ.Management.Password.File = "amqp://h", "u", "f"
		}, nil},
		{"a management password in a Secret", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.Management = "amqp://h", v1alpha1.Management{Username: "u", Password: v1alpha1.CredentialSource{SecretKeyRef: ref}}
		}, []string{"spec.rabbitmq.management.password.secretKeyRef: Forbidden: only in a cluster: use a file"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := texts(v1alpha1.Validate(valid(tt.edit), v1alpha1.FromFile))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateManagementURL(t *testing.T) {
	tests := []struct{ rule, url, want string }{
		{"the derived one", "", ""},
		{"a host and a port", "http://h:15672", ""},
		{"a slash at the end", "https://h/", ""},
		{"a path prefix", "https://h/rabbit/mq", ""},
		{"no scheme", "hunter2:15672", "Invalid value: must begin with http:// or https://"},
		{"no host", "http://:15672", "Invalid value: names no host: write it like http://rabbitmq:15672"},
		{"a password", "http://u:hunter2@h", "Forbidden: must hold no credentials: use management.username and management.password"},
		{"no URL", "http://u:hunter2%zz@h", "Invalid value: is not a URL: write it like http://rabbitmq:15672"},
		{"a query", "http://h/p?hunter2=1", "Invalid value: must hold no query and no fragment: leave out what begins with ? or #"},
		{"an empty query", "http://h?", "Invalid value: must hold no query and no fragment: leave out what begins with ? or #"},
		{"a fragment, as a browser shows it", "http://h:15672/#/queues", "Invalid value: must hold no query and no fragment: leave out what begins with ? or #"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			b := valid(func(b *v1alpha1.CeleryBroker) {
				b.Spec.URL.Value, b.Spec.RabbitMQ.ManagementURL = "amqp://h", tt.url
			})
			var want []string
			if tt.want != "" {
				want = []string{"spec.rabbitmq.managementURL: " + tt.want}
			}
			if diff := cmp.Diff(want, texts(v1alpha1.Validate(b, v1alpha1.FromFile))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateInCluster(t *testing.T) {
	ref := &v1alpha1.SecretKeyRef{Name: "s", Key: "k"}
	tests := []struct {
		rule string
		edit func(*v1alpha1.CeleryBroker)
		want []string
	}{
		{"everything in Secrets", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL = v1alpha1.URLSource{SecretKeyRef: ref}
			b.Spec.TLS = v1alpha1.TLS{CASecretKeyRef: ref, CertSecretKeyRef: ref, KeySecretKeyRef: ref}
			b.Spec.Redis.Sentinel.Password.SecretKeyRef = ref
			b.Spec.RabbitMQ.Management = v1alpha1.Management{Username: "u", Password: v1alpha1.CredentialSource{SecretKeyRef: ref}}
		}, nil},
		{"a management password in a file", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL = v1alpha1.URLSource{SecretKeyRef: ref}
			b.Spec.RabbitMQ.Management = v1alpha1.Management{Username: "u", Password: v1alpha1.CredentialSource{File: "/etc/shadow"}}
		}, []string{"spec.rabbitmq.management.password.file: Forbidden: only in a brokers file: use secretKeyRef"}},
		{"EXTERNAL without a certificate", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqps://h", "EXTERNAL"
		}, []string{`spec.rabbitmq.loginMethod: Invalid value: "EXTERNAL": logs in with a client certificate: set spec.tls.certSecretKeyRef and spec.tls.keySecretKeyRef`}},
		{"EXTERNAL with a certificate", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.RabbitMQ.LoginMethod = "amqps://h", "EXTERNAL"
			b.Spec.TLS = v1alpha1.TLS{CertSecretKeyRef: ref, KeySecretKeyRef: ref}
		}, nil},
		{"a reference to nothing", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL = v1alpha1.URLSource{SecretKeyRef: &v1alpha1.SecretKeyRef{}}
		}, []string{"spec.url.secretKeyRef.name: Required value: the Secret's name", "spec.url.secretKeyRef.key: Required value: the key within the Secret"}},
		{"a URL in a file", func(b *v1alpha1.CeleryBroker) { b.Spec.URL = v1alpha1.URLSource{File: "/etc/shadow"} }, []string{"spec.url.file: Forbidden: only in a brokers file: use secretKeyRef"}},
		{"a URL that names a file", func(b *v1alpha1.CeleryBroker) { b.Spec.URL.Value = "rediss://h?ssl_keyfile=/key" }, []string{"spec.url.value: Invalid value: the URL names files, which are only in a brokers file: use spec.tls"}},
		{"authorities in a file and in a Secret", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.TLS = "rediss://h", v1alpha1.TLS{CAFile: "c", CASecretKeyRef: ref}
		}, []string{"spec.tls.caFile: Forbidden: only in a brokers file: use secretKeyRef", "spec.tls.caSecretKeyRef: Forbidden: give one of caFile and caSecretKeyRef, not both"}},
		{"a certificate without a key", func(b *v1alpha1.CeleryBroker) {
			b.Spec.URL.Value, b.Spec.TLS.CertSecretKeyRef = "rediss://h", ref
		}, []string{"spec.tls.keySecretKeyRef: Required value: a client certificate needs its private key"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got := texts(v1alpha1.Validate(valid(tt.edit), v1alpha1.FromCluster))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSetDefaultsKeepsWhatIsSet(t *testing.T) {
	set := v1alpha1.Sampling{Interval: duration(-1), Timeout: duration(0), MaxAge: duration(time.Hour)}
	b := v1alpha1.CeleryBroker{Spec: v1alpha1.CeleryBrokerSpec{Sampling: set}}
	v1alpha1.SetDefaults(&b)
	if diff := cmp.Diff(set, b.Spec.Sampling); diff != "" {
		t.Errorf("sampling (-want +got):\n%s", diff)
	}
}

func TestWithoutHeartbeatsNobodyIsAsked(t *testing.T) {
	for heard, want := range map[*bool]bool{nil: true, new(true): true, new(false): false} {
		b := v1alpha1.CeleryBroker{Spec: v1alpha1.CeleryBrokerSpec{Workers: v1alpha1.Workers{Heartbeats: heard}}}
		v1alpha1.SetDefaults(&b)
		if *b.Spec.Workers.RemoteControl != want {
			t.Errorf("heartbeats %v: remote control is %t, want %t", heard, *b.Spec.Workers.RemoteControl, want)
		}
	}
}
