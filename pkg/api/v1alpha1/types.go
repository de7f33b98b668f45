package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Names of the API.
const (
	// Group is the API group.
	Group = "celery-hpa.io"
	// Version is the version of the group.
	Version = "v1alpha1"
	// APIVersion is what an object's apiVersion has to be.
	APIVersion = Group + "/" + Version
	// Kind is the kind of a CeleryBroker.
	Kind = "CeleryBroker"
	// Plural is the name of the resource.
	Plural = "celerybrokers"
)

// CeleryBroker is a message broker that Celery workers take their tasks from.
// The metrics of its queues exist in its own namespace only.
//
// +kubebuilder:resource:scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Queues",type=integer,JSONPath=`.status.queues`
// +kubebuilder:printcolumn:name="Backlog",type=integer,JSONPath=`.status.backlog`
// +kubebuilder:printcolumn:name="In-flight",type=integer,JSONPath=`.status.inFlight`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="metadata.name is the value of the label broker: it has 63 characters at most"
type CeleryBroker struct {
	metav1.TypeMeta `json:",inline"`
	// The name is the value of the label "broker" of the metrics; it has 63
	// characters at most.
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says where the broker is and how to read it.
	Spec CeleryBrokerSpec `json:"spec"`
	// Status is what celery-hpa has found. Only in a cluster.
	//
	// +optional
	Status CeleryBrokerStatus `json:"status,omitzero"`
}

// Ref returns the namespace and name of the broker.
func (b *CeleryBroker) Ref() queue.BrokerRef {
	return queue.BrokerRef{Namespace: b.Namespace, Name: b.Name}
}

// CeleryBrokerSpec says where a broker is and how to read it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.redis) || !has(self.rabbitmq)",message="a broker is Redis or RabbitMQ: give one of redis and rabbitmq"
type CeleryBrokerSpec struct {
	// URL is the broker's URL as Celery's broker_url has it.
	//
	// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.secretKeyRef)",message="give exactly one of value and secretKeyRef"
	URL URLSource `json:"url"`
	// Queues lists the queues to read, by default every queue that the broker
	// knows. Listing them also makes a queue known before its first message.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=10000
	Queues []Queue `json:"queues,omitempty"`
	// Sampling says how often the broker is read.
	//
	// +optional
	Sampling Sampling `json:"sampling,omitzero"`
	// Lookout says how closely the queues are watched whose workers are at zero.
	//
	// +optional
	Lookout Lookout `json:"lookout,omitzero"`
	// Workers says how celery-hpa learns what the workers do.
	//
	// +optional
	Workers Workers `json:"workers,omitzero"`
	// TLS holds the certificates for a broker that is reached over TLS. With any of
	// them the connection is secured, whatever the URL's scheme (Celery's
	// broker_use_ssl).
	//
	// +optional
	TLS TLS `json:"tls,omitzero"`
	// Redis holds settings that apply to Redis alone.
	//
	// +optional
	Redis Redis `json:"redis,omitzero"`
	// RabbitMQ holds settings that apply to RabbitMQ alone.
	//
	// +optional
	RabbitMQ RabbitMQ `json:"rabbitmq,omitzero"`
}

// URLSource is where the broker's URL is found. Exactly one field is set.
//
// Redis URLs are written as Celery takes them: redis://user:password@host:6379/1,
// rediss:// for TLS, redis+socket:///path?virtual_host=1, sentinel://host:26379/0.
// So are those of RabbitMQ: amqp://user:password@host:5672/vhost, amqps:// for TLS.
// Several URLs separated by ";" are tried in turn. Characters with a meaning in
// URLs are percent-encoded in a user name, password or virtual host.
type URLSource struct {
	// Value is the URL itself. It must not hold a password.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="!self.matches('//[^/@;]*:[^/@;]+@')",message="holds a password: put the URL into a Secret, and use secretKeyRef"
	Value string `json:"value,omitempty"`
	// File is the path of a file that holds the URL and nothing else, read again
	// when it changes. A relative path begins at the folder of the brokers file.
	// Only in a brokers file.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="only in a brokers file: use secretKeyRef"
	File string `json:"file,omitempty"`
	// SecretKeyRef is a key of a Secret in the broker's namespace. Only in a
	// cluster.
	//
	// +optional
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`
}

// CredentialSource is where a credential is found: like URLSource, but it is
// never written into the object itself. At most one field is set; none means
// that there is no such credential.
type CredentialSource struct {
	// File is the path of a file that holds the credential and nothing else. A
	// relative path begins at the folder of the brokers file. Only in a brokers
	// file.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="false",message="only in a brokers file: use secretKeyRef"
	File string `json:"file,omitempty"`
	// SecretKeyRef is a key of a Secret in the broker's namespace. Only in a
	// cluster.
	//
	// +optional
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`
}

// SecretKeyRef names one key of a Secret in the broker's namespace.
type SecretKeyRef struct {
	// Name is the name of the Secret.
	//
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Key is the key within the Secret.
	//
	// +kubebuilder:validation:MinLength=1
	Key string `json:"key"`
}

// Queue is one queue to read.
type Queue struct {
	// Name is the queue's name as Celery knows it. It may hold any character.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Name string `json:"name"`
	// Alias is the value of the label "queue" under which the queue's metrics are
	// selected: by default the name or, where a label cannot hold that, the name
	// with each other character replaced with "_" (the rule is queue.Label).
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
	Alias string `json:"alias,omitempty"`
}

// Label returns the value of the label "queue": the alias, or what the name
// stands for without one.
func (q Queue) Label() string {
	if q.Alias != "" {
		return q.Alias
	}
	return queue.Label(q.Name)
}

// Sampling says how often a broker is read. After SetDefaults no field is nil.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxAge) || !has(self.interval) || duration(self.maxAge) >= duration(self.interval)",message="maxAge must be one interval at least"
type Sampling struct {
	// Interval is the time from one reading to the next, from 100ms to 1h, by
	// default 1s.
	//
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="must be from 100ms to 1h"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Timeout bounds one reading, connecting included, from 10ms to 1h, by
	// default 2s.
	//
	// +optional
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1h')",message="must be from 10ms to 1h"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// MaxAge is how long the last reading is served while the broker cannot be
	// read; after that the metrics are an error. At least one interval, at most
	// 24h, by default three intervals or 10s, whichever is longer.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="must be from 100ms to 24h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// Lookout says how closely the queues are watched whose workers are at zero, so that a
// message wakes them at once. After SetDefaults no field is nil.
type Lookout struct {
	// Tracking is whether Redis is asked to tell of messages (CLIENT TRACKING), by
	// default true. Where it cannot or may not, the queues are read again and again,
	// as always with RabbitMQ.
	//
	// +optional
	// +kubebuilder:default=true
	Tracking *bool `json:"tracking,omitempty"`
	// Interval is the time from one such reading to the next, from 10ms to 1m, by
	// default 50ms.
	//
	// +optional
	// +kubebuilder:default="50ms"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1m')",message="must be from 10ms to 1m"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// ReadsPerSecond bounds how many queues such readings read in a second, from 1 to
	// 1000000, by default 5000: with more queues than that allows for, the interval
	// is longer.
	//
	// +optional
	// +kubebuilder:default=5000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	ReadsPerSecond *int32 `json:"readsPerSecond,omitempty"`
	// SampleInterval is the time from one full reading of the broker to the next while
	// every target of the namespace sleeps, from sampling.interval to
	// sampling.maxAge, by default 5s
	// or half of sampling.maxAge, whichever is shorter. It finds what the lookout may
	// have missed.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="must be from 100ms to 24h"
	SampleInterval *metav1.Duration `json:"sampleInterval,omitempty"`
}

// Workers says how celery-hpa learns what the workers do. After SetDefaults both
// switches are set.
//
// +kubebuilder:validation:XValidation:rule="!has(self.remoteControl) || !self.remoteControl || !has(self.heartbeats) || self.heartbeats",message="whom to ask is known by heartbeats alone: remoteControl needs heartbeats"
type Workers struct {
	// Heartbeats is whether the workers' heartbeats are heard, by default true.
	// Without them nobody knows which workers are busy.
	//
	// +optional
	// +kubebuilder:default=true
	Heartbeats *bool `json:"heartbeats,omitempty"`
	// RemoteControl is whether workers are asked by Celery's remote control, when
	// their heartbeats change, which tasks they execute, from which queues, and in
	// how many slots; by default as Heartbeats, without which nobody is asked.
	//
	// +optional
	RemoteControl *bool `json:"remoteControl,omitempty"`
	// Fleets says which queues the workers of Deployments and StatefulSets serve,
	// where they cannot be asked by remote control.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	Fleets []Fleet `json:"fleets,omitempty"`
}

// Fleet is a Deployment or StatefulSet of workers. Exactly one of both names is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.deployment) != has(self.statefulset)",message="give exactly one of deployment and statefulset"
type Fleet struct {
	// Deployment is the name of a Deployment in the broker's namespace.
	//
	// +optional
	Deployment string `json:"deployment,omitempty"`
	// StatefulSet is the name of a StatefulSet in the broker's namespace.
	//
	// +optional
	StatefulSet string `json:"statefulset,omitempty"`
	// Queues are the names of the queues that its workers serve.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MinLength=1
	Queues []string `json:"queues"`
	// AcksLate is Celery's task_acks_late, by default false. Of a fleet that serves
	// a single queue, tasks that are acknowledged early are counted as in flight
	// by the workers' heartbeats.
	//
	// +optional
	AcksLate bool `json:"acksLate,omitempty"`
}

// TLS holds certificates and keys in PEM format. Each comes from a file (in a
// brokers file) or from a key of a Secret (in a cluster). Relative paths begin at
// the folder of the brokers file. A change of their content is noticed.
//
// +kubebuilder:validation:XValidation:rule="!has(self.caFile) && !has(self.certFile) && !has(self.keyFile)",message="files are only in a brokers file: use caSecretKeyRef, certSecretKeyRef and keySecretKeyRef"
// +kubebuilder:validation:XValidation:rule="has(self.certSecretKeyRef) == has(self.keySecretKeyRef)",message="a client certificate and its private key go together: give both of certSecretKeyRef and keySecretKeyRef"
type TLS struct {
	// CAFile is the path of the certificates of the authorities that the broker's
	// certificate is checked against, by default those of the system.
	//
	// +optional
	CAFile string `json:"caFile,omitempty"`
	// CASecretKeyRef is where the authorities' certificates are in a cluster.
	//
	// +optional
	CASecretKeyRef *SecretKeyRef `json:"caSecretKeyRef,omitempty"`
	// CertFile is the path of the client certificate to present, by default none.
	// It goes together with a key.
	//
	// +optional
	CertFile string `json:"certFile,omitempty"`
	// CertSecretKeyRef is where the client certificate is in a cluster.
	//
	// +optional
	CertSecretKeyRef *SecretKeyRef `json:"certSecretKeyRef,omitempty"`
	// KeyFile is the path of the client certificate's private key.
	//
	// +optional
	KeyFile string `json:"keyFile,omitempty"`
	// KeySecretKeyRef is where the private key is in a cluster.
	//
	// +optional
	KeySecretKeyRef *SecretKeyRef `json:"keySecretKeyRef,omitempty"`
}

// Redis holds what Celery's broker_transport_options may change about Redis.
// Each field has to be what the workers' own option of that name is.
type Redis struct {
	// GlobalKeyPrefix is kombu's global_keyprefix, which comes before the name of
	// every key, by default empty.
	//
	// +optional
	GlobalKeyPrefix string `json:"globalKeyPrefix,omitempty"`
	// Separator is kombu's sep, which stands between a queue's name and a
	// priority, by default the two bytes 06 16 ("\x06\x16").
	//
	// +optional
	Separator string `json:"separator,omitempty"`
	// UnackedKey is kombu's unacked_key, the hash of unacknowledged messages, by
	// default "unacked".
	//
	// +optional
	UnackedKey string `json:"unackedKey,omitempty"`
	// UnackedIndexKey is kombu's unacked_index_key, the sorted set of their
	// delivery tags, by default "unacked_index".
	//
	// +optional
	UnackedIndexKey string `json:"unackedIndexKey,omitempty"`
	// MasterName is kombu's master_name, the name by which the Sentinels know the
	// Redis to read. Required with a sentinel:// URL.
	//
	// +optional
	MasterName string `json:"masterName,omitempty"`
	// Sentinel is what the Sentinels themselves ask for (kombu's
	// sentinel_kwargs); the URL has what Redis asks for.
	//
	// +optional
	Sentinel Sentinel `json:"sentinel,omitzero"`
}

// Sentinel says how to log in to Redis Sentinel.
//
// +kubebuilder:validation:XValidation:rule="!has(self.username) || has(self.password)",message="a user name needs a password"
type Sentinel struct {
	// Username is the Sentinels' ACL user, by default none.
	//
	// +optional
	Username string `json:"username,omitempty"`
	// Password is where the Sentinels' password is found, by default none.
	//
	// +optional
	Password CredentialSource `json:"password,omitzero"`
}

// RabbitMQ holds settings for RabbitMQ.
type RabbitMQ struct {
	// ManagementURL is the URL of the management API, http:// or https://, with
	// the path prefix that the API may have there, and without credentials: see
	// Management. By default it is derived from the broker's URL.
	//
	// +optional
	ManagementURL string `json:"managementURL,omitempty"`
	// LoginMethod is how to log in to the broker, Celery's broker_login_method:
	// PLAIN, the default, AMQPLAIN, or EXTERNAL, which takes a client certificate.
	// A login_method in the URL goes before it.
	//
	// +optional
	// +kubebuilder:validation:Enum=PLAIN;AMQPLAIN;EXTERNAL
	LoginMethod string `json:"loginMethod,omitempty"`
	// Management is who logs in to the management API, by default the user of the
	// broker's URL.
	//
	// +optional
	Management Management `json:"management,omitzero"`
	// QuorumTickInterval is the broker's own setting quorum_tick_interval: how
	// often its quorum queues count what they hold, and so how old a count of
	// theirs may be. From 100ms to 1h, by default RabbitMQ's 5s.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="must be from 100ms to 1h"
	QuorumTickInterval *metav1.Duration `json:"quorumTickInterval,omitempty"`
}

// Management says how to log in to RabbitMQ's management API. Both fields are
// set, or none.
//
// +kubebuilder:validation:XValidation:rule="has(self.username) == has(self.password)",message="give both of username and password, or none"
type Management struct {
	// Username is a RabbitMQ user with the tag "management".
	//
	// +optional
	Username string `json:"username,omitempty"`
	// Password is where the user's password is found.
	//
	// +optional
	Password CredentialSource `json:"password,omitzero"`
}
