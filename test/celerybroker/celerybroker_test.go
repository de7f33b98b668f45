package celerybroker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const secret = "hunter2"

// celeryQueue declares the queue of these tests, which no worker has made known.
const celeryQueue = ", queues: [{name: celery}]"

func TestCeleryBrokers(t *testing.T) {
	c := startCluster(t)
	t.Run("the API server refuses what cannot be", c.testSchema)
	t.Run("a broker comes and goes", c.testLife)
	t.Run("one harms no other", c.testTwins)
	t.Run("the brokers file goes first", c.testFile)
	t.Run("what the broker does not permit is said", c.testRights)
	t.Run("what the broker does not tell for lack of a right is said", c.testLookoutRights)
	t.Run("an HPA in a namespace without a broker", c.testUnserved)
}

// testSchema holds the schema against the program's own validation: what one of them
// refuses, with good reason, the other refuses too.
func (c *cluster) testSchema(t *testing.T) {
	const url = "url: {value: 'redis://h'}"
	for _, tt := range []struct{ rule, spec, field, why string }{
		{"no URL", "queues: []", "spec.url", "Required"},
		{"an empty source", "url: {}", "spec.url", "exactly one of value and secretKeyRef"},
		{"two sources", "url: {value: 'redis://h', secretKeyRef: {name: a, key: b}}", "spec.url", "exactly one of value and secretKeyRef"},
		{"a URL with a password", "url: {value: 'redis://:hunter2@h'}", "spec.url.value", "holds a password"},
		{"a URL of a file", "url: {file: /etc/passwd}", "spec.url", "secretKeyRef"},
		{"a Secret without a key", "url: {secretKeyRef: {name: a}}", "spec.url.secretKeyRef.key", "Required"},
		{"an unknown field", url + ", sampling: {intervall: 1s}", "spec.sampling.intervall", "unknown field"},
		{"a number for a duration", url + ", sampling: {interval: 5}", "spec.sampling.interval", "string"},
		{"no duration", url + ", sampling: {interval: often}", "spec.sampling.interval", "Duration"},
		{"a negative duration", url + ", sampling: {interval: -1s}", "spec.sampling.interval", "from 100ms to 1h"},
		{"too long a duration", url + ", sampling: {timeout: 2h}", "spec.sampling.timeout", "from 10ms to 1h"},
		{"a maximum age below the interval", url + ", sampling: {interval: 5s, maxAge: 1s}", "spec.sampling", "one interval at least"},
		{"no reads", url + ", lookout: {readsPerSecond: 0}", "spec.lookout.readsPerSecond", "greater than or equal to 1"},
		{"a queue without a name", url + ", queues: [{alias: a}]", "spec.queues[0].name", "Required"},
		{"a queue twice", url + ", queues: [{name: a}, {name: a}]", "spec.queues[1]", "Duplicate"},
		{"an alias that is no label", url + ", queues: [{name: a, alias: 'a b'}]", "spec.queues[0].alias", "should match"},
		{"a fleet of two", url + ", workers: {fleets: [{deployment: a, statefulset: b, queues: [q]}]}", "spec.workers.fleets[0]", "exactly one of deployment and statefulset"},
		{"a fleet without queues", url + ", workers: {fleets: [{deployment: a, queues: []}]}", "spec.workers.fleets[0].queues", "at least 1"},
		{"questions without heartbeats", url + ", workers: {heartbeats: false, remoteControl: true}", "spec.workers", "needs heartbeats"},
		{"a certificate without a key", url + ", tls: {certSecretKeyRef: {name: a, key: b}}", "spec.tls", "go together"},
		{"a certificate of a file", url + ", tls: {caFile: /ca}", "spec.tls", "only in a brokers file"},
		{"settings of both", url + ", redis: {separator: ':'}, rabbitmq: {loginMethod: PLAIN}", "spec", "Redis or RabbitMQ"},
		{"an unknown login", url + ", rabbitmq: {loginMethod: MAGIC}", "spec.rabbitmq.loginMethod", "supported values"},
		{"a user without a password", url + ", rabbitmq: {management: {username: a}}", "spec.rabbitmq.management", "both of username and password"},
		{"a sentinel's user without a password", url + ", redis: {sentinel: {username: a}}", "spec.redis.sentinel", "needs a password"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			err := c.create(t.Context(), "bad", tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.field) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("the API server says %v, want %s: … %s …", err, tt.field, tt.why)
			}
			if errs := validate(t, tt.spec); len(errs) == 0 && tt.why != "unknown field" && tt.why != "string" && tt.why != "Duration" {
				t.Error("the program would take it")
			}
		})
	}
	if err := c.create(t.Context(), strings.Repeat("x", 64), url); err == nil || !strings.Contains(err.Error(), "63 characters") {
		t.Errorf("of a name that is no label the API server says %v", err)
	}
}

// validate is what the program itself says of a spec, nothing if it cannot be decoded.
func validate(t *testing.T, spec string) field.ErrorList {
	t.Helper()
	b := v1alpha1.CeleryBroker{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind}}
	b.Name, b.Namespace = "bad", space
	if err := yaml.Unmarshal([]byte("{"+spec+"}"), &b.Spec); err != nil {
		return nil
	}
	v1alpha1.SetDefaults(&b)
	return v1alpha1.Validate(&b, v1alpha1.FromCluster)
}

// testLife is that of one CeleryBroker, from a Secret that is missing to its end.
func (c *cluster) testLife(t *testing.T) {
	redis := servers.StartRedis(t, servers.RedisOptions{Password: secret})
	check(t, redis.Admin().LPush(t.Context(), "celery", "a", "b", "c").Err())
	p := c.run(t, "")
	c.mustCreate(t, "redis", "url: {secretKeyRef: {name: redis-url, key: url}}"+celeryQueue)
	c.awaitReady(t, "redis", v1alpha1.ReasonUnresolved, "spec.url.secretKeyRef: there is no Secret redis-url in namespace airflow")
	if _, err := p.backlog(t.Context(), "celery"); err == nil {
		t.Error("a broker without a URL has a backlog")
	}

	c.putSecret(t, "redis-url", "uri", redis.URL(0))
	c.awaitReady(t, "redis", v1alpha1.ReasonUnresolved, `spec.url.secretKeyRef: Secret redis-url has no key url: it has ["uri"]`)
	c.putSecret(t, "redis-url", "url", "hunter2://h")
	c.awaitReady(t, "redis", v1alpha1.ReasonUnresolved, "spec.url.secretKeyRef: Invalid value: broker URL: unknown scheme")
	c.putSecret(t, "redis-url", "url", redis.URL(0))
	c.checkStatus(t, c.awaitReady(t, "redis", v1alpha1.ReasonSampled, "").Status)
	p.awaitBacklog(t, "celery", "3")
	t.Run("the password changes together with the Secret", func(t *testing.T) {
		const next = "correct horse"
		check(t, redis.Admin().ConfigSet(t.Context(), "requirepass", next).Err())
		c.putSecret(t, "redis-url", "url", strings.Replace(redis.URL(0), secret, "correct%20horse", 1))
		check(t, redis.Admin().ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
		check(t, redis.Admin().LPush(t.Context(), "celery", "d").Err())
		p.awaitBacklog(t, "celery", "4")
	})
	t.Run("the Secret goes, and what was good stays", func(t *testing.T) {
		check(t, c.clients.CoreV1().Secrets(space).Delete(t.Context(), "redis-url", metav1.DeleteOptions{}))
		c.awaitReady(t, "redis", v1alpha1.ReasonUnresolved, "what was good before stays in use")
		p.awaitBacklog(t, "celery", "4")
	})
	c.delete(t, "redis")
	eventually.Succeeds(t, patience, "the broker is served no more", func() error {
		if got, err := p.backlog(t.Context(), "celery"); err == nil {
			return fmt.Errorf("a broker that is gone has the backlog %v", got)
		}
		return nil
	})
	if said := p.log.String(); strings.Contains(said, secret) || strings.Contains(said, "horse") {
		t.Errorf("celery-hpa has said the password:\n%s", said)
	}
}

// checkStatus looks at a broker of three messages, as a client and as a person does.
func (c *cluster) checkStatus(t *testing.T, s v1alpha1.CeleryBrokerStatus) {
	t.Helper()
	if s.Queues == nil || *s.Queues != 1 || s.Backlog == nil || *s.Backlog != 3 || s.InFlight == nil || *s.InFlight != 0 || s.LastSampleTime == nil {
		t.Errorf("the status is %+v", s)
	}
	if listed := c.kubectl(t, "-n", space, "get", "celerybrokers"); !slices.Equal(strings.Fields(listed)[:11], []string{
		"NAME", "READY", "QUEUES", "BACKLOG", "IN-FLIGHT", "AGE", "redis", "True", "1", "3", "0",
	}) {
		t.Errorf("kubectl lists:\n%s", listed)
	}
}

// testTwins has two CeleryBrokers read one broker, and others beside them that cannot be
// read at all.
func (c *cluster) testTwins(t *testing.T) {
	redis := servers.StartRedis(t, servers.RedisOptions{})
	check(t, redis.Admin().LPush(t.Context(), "celery", "a").Err())
	url := "url: {value: '" + redis.URL(0) + "'}" + celeryQueue
	p := c.run(t, "")
	c.mustCreate(t, "first", url)
	c.awaitReady(t, "first", v1alpha1.ReasonSampled, "")
	time.Sleep(time.Second) // creationTimestamp has seconds
	c.mustCreate(t, "again", url)
	c.mustCreate(t, "down", "url: {value: 'redis://127.0.0.1:1'}")
	c.mustCreate(t, "mistaken", "url: {value: 'redis://h'}, queues: [{name: 'a b'}, {name: 'a_b'}]")
	c.awaitReady(t, "again", v1alpha1.ReasonShadowed, "spec.url: CeleryBroker airflow/first reads queues of the same broker already")
	c.awaitReady(t, "down", v1alpha1.ReasonUnreachable, "connection refused")
	c.awaitReady(t, "mistaken", v1alpha1.ReasonInvalid, "spec.queues[1].name: Duplicate value")
	c.awaitReady(t, "first", v1alpha1.ReasonSampled, "")
	c.kubectl(t, "-n", space, "delete", "celerybroker", "down", "mistaken")
	p.awaitBacklog(t, "celery", "1")
	c.delete(t, "first")
	c.awaitReady(t, "again", v1alpha1.ReasonSampled, "")
	p.awaitBacklog(t, "celery", "1")
}

// testFile has a broker of the brokers file bear the name of a CeleryBroker.
func (c *cluster) testFile(t *testing.T) {
	redis := servers.StartRedis(t, servers.RedisOptions{})
	check(t, redis.Admin().LPush(t.Context(), "celery", "a", "b").Err())
	c.mustCreate(t, "redis", "url: {value: 'redis://127.0.0.1:1'}")
	p := c.run(t, "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: redis, namespace: "+space+"}\nspec: {url: {value: '"+redis.URL(0)+"'}"+celeryQueue+"}\n")
	c.awaitReady(t, "redis", v1alpha1.ReasonShadowed, "metadata.name: the brokers file has a broker of this name")
	p.awaitBacklog(t, "celery", "2")
}

// testRights has a user of Redis who may read the queues, but not hear the workers.
func (c *cluster) testRights(t *testing.T) {
	redis := servers.StartRedis(t, servers.RedisOptions{Users: []string{"reader on >" + secret + " ~* -@all +ping +multi +exec +llen +scan +smembers +select"}})
	check(t, redis.Admin().LPush(t.Context(), "celery", "a").Err())
	c.run(t, "")
	c.putSecret(t, "reader", "url", strings.Replace(redis.URL(0), "redis://", "redis://reader:"+secret+"@", 1))
	c.mustCreate(t, "redis", "url: {secretKeyRef: {name: reader, key: url}}"+celeryQueue)
	c.awaitReady(t, "redis", v1alpha1.ReasonIncomplete, "+psubscribe")
	eventually.Succeeds(t, patience, "a missing right is named", func() error {
		if b := c.get(t, "redis"); len(b.Status.MissingRights) == 0 {
			return fmt.Errorf("the status names no missing right: %+v", b.Status)
		}
		return nil
	})
}

// testLookoutRights has a user of Redis who may do all but hear of messages when they
// arrive, until he may.
func (c *cluster) testLookoutRights(t *testing.T) {
	redis := servers.StartRedis(t, servers.RedisOptions{Users: []string{"watcher on >" + secret + " ~* &* +@all -client|tracking"}})
	check(t, redis.Admin().LPush(t.Context(), "awake", "a").Err())
	p := c.run(t, "")
	c.putSecret(t, "watcher", "url", strings.Replace(redis.URL(0), "redis://", "redis://watcher:"+secret+"@", 1))
	c.mustCreate(t, "redis", "url: {secretKeyRef: {name: watcher, key: url}}"+celeryQueue)
	c.awaitReady(t, "redis", v1alpha1.ReasonSampled, "")
	if rights := c.get(t, "redis").Status.MissingRights; len(rights) > 0 {
		t.Errorf("nobody sleeps, and it lacks %q", rights)
	}
	c.apply(t, sleeper)
	missing := func() []string { return c.get(t, "redis").Status.MissingRights }
	eventually.Succeeds(t, longPatience, "the one missing right is named", func() error {
		if rights := missing(); len(rights) != 1 || !strings.Contains(rights[0], "+client|tracking") || !strings.Contains(rights[0], "NOPERM") {
			return fmt.Errorf("the missing rights are %q", rights)
		}
		return nil
	})
	c.awaitReady(t, "redis", v1alpha1.ReasonSampled, "")
	check(t, redis.Admin().Do(t.Context(), "acl", "setuser", "watcher", "+client|tracking").Err())
	eventually.Succeeds(t, longPatience, "no right is missing", func() error {
		if rights := missing(); len(rights) > 0 {
			return fmt.Errorf("it lacks %q", rights)
		}
		return nil
	})
	if !strings.Contains(p.log.String(), "The broker tells of messages for sleeping targets as they arrive") {
		t.Error("it is not told of messages")
	}
}

// sleeper is a target at zero.
const sleeper = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper, namespace: airflow}
spec:
  replicas: 0
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec: {containers: [{name: worker, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: sleeper, namespace: airflow, annotations: {celery-hpa.io/scale-to-zero: "true"}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: sleeper}
  maxReplicas: 2
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: celery}}}, target: {type: AverageValue, averageValue: "1"}}
`

// mustCreate makes a CeleryBroker that is gone when the test ends.
func (c *cluster) mustCreate(t *testing.T, name, spec string) {
	t.Helper()
	check(t, c.create(t.Context(), name, spec))
	t.Cleanup(func() {
		_, _ = c.Kubectl(context.Background(), "-n", space, "delete", "celerybroker", name) // it may be gone
	})
}

func (c *cluster) delete(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "-n", space, "delete", "celerybroker", name)
}

// putSecret makes a Secret hold one key.
func (c *cluster) putSecret(t *testing.T, name, key, value string) {
	t.Helper()
	secrets := c.clients.CoreV1().Secrets(space)
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space}, StringData: map[string]string{key: value}}
	_ = secrets.Delete(t.Context(), name, metav1.DeleteOptions{}) // it may not be there
	_, err := secrets.Create(t.Context(), object, metav1.CreateOptions{})
	check(t, err)
}
