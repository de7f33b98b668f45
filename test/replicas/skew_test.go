package replicas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/celery-hpa/celery-hpa/deploy"
	"github.com/celery-hpa/celery-hpa/hack/localkube/procnode"
	"github.com/celery-hpa/celery-hpa/hack/setup"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

// edit is a change of a file: new in place of old, which is there once.
type edit struct{ file, old, new string }

// nextMinor is what a next minor version may do differently: it has one more field in
// the spec and in the status of a CeleryBroker, writes another match condition that
// means the same, and keeps one more key in the Secret of the certificate.
func nextMinor() []edit {
	return []edit{
		{"pkg/api/v1alpha1/status.go", "\tMissingRights []string", "\tReaders *int64 `json:\"readers,omitempty\"`\n\tMissingRights []string"},
		{"pkg/act/brokerstatus/status.go", "\ts.LastSampleTime = &at\n", "\ts.LastSampleTime = &at\n\ts.Readers = new(int64(7))\n"},
		{"pkg/act/brokerstatus/writer.go", `"missingRights"}`, `"missingRights", "readers"}`},
		{"pkg/act/admission/registration/expression.go", "\t\t\treturn e, nil\n", "\t\t\treturn e + \" || false\", nil\n"},
		{"pkg/act/certificates/state.go", "trustedName: s.trustedPEM, signerKeyName", "\"next.crt\": s.trustedPEM, trustedName: s.trustedPEM, signerKeyName"},
	}
}

// nextDefinition is the definition of CeleryBrokers that comes with it.
func nextDefinition(t *testing.T) string {
	t.Helper()
	text := string(deploy.CustomResources())
	for _, e := range []edit{
		{"crd.yaml", "\n              missingRights:\n", "\n              readers: {type: integer, format: int64}\n              missingRights:\n"},
		{"crd.yaml", "\n              tls:\n", "\n              future: {type: string}\n              tls:\n"},
	} {
		text = e.apply(t, text)
	}
	return text
}

func (e edit) apply(t *testing.T, text string) string {
	t.Helper()
	if n := strings.Count(text, e.old); n != 1 {
		t.Fatalf("%s has %q %d times, want once: the test is to follow", e.file, e.old, n)
	}
	return strings.Replace(text, e.old, e.new, 1)
}

// buildNext builds the next minor version.
func buildNext(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, e := range nextMinor() {
		path, err := filepath.Abs(filepath.Join("..", "..", e.file))
		check(t, err)
		text, err := os.ReadFile(path)
		check(t, err)
		overlay.Replace[path] = filepath.Join(folder, fmt.Sprintf("%d.go", i))
		check(t, os.WriteFile(overlay.Replace[path], []byte(e.apply(t, string(text))), 0o600))
	}
	text, err := json.Marshal(overlay)
	check(t, err)
	path := filepath.Join(folder, "overlay.json")
	check(t, os.WriteFile(path, text, 0o600))
	return build(t, "v0.2.0", "-overlay="+path)
}

// TestTwoVersionsLiveBesideEachOther runs two builds, one minor version apart, as during
// an upgrade and after one that was taken back: whoever leads, workers go to zero and
// come back, and neither undoes what the other has written.
func TestTwoVersionsLiveBesideEachOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := &skew{fixture: f, older: build(t, "v0.1.0"), newer: buildNext(t)}
	var err error
	s.objects, err = dynamic.NewForConfig(f.cluster.RESTConfig())
	check(t, err)
	f.apply(t, nextDefinition(t))
	f.apply(t, fmt.Sprintf("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: redis, namespace: %s}\n"+
		"spec: {url: {value: %q}, queues: [{name: celery}], future: unknown to the older one}\n", space, f.redis.URL(0)))
	s.runWorkers(t)
	for _, program := range []string{s.older, s.newer} {
		s.replicas = append(s.replicas, s.begin(t, program))
	}
	check(t, f.cluster.AwaitExternalMetrics(t.Context()))

	t.Run("the older one leads", func(t *testing.T) { s.term(t, s.older) })
	t.Run("the newer one leads", func(t *testing.T) { s.term(t, s.newer) })
	t.Run("both repair the Secret", s.repairInTurn)
}

// skew is a replica of each of two versions, and workers.
type skew struct {
	*fixture
	objects      dynamic.Interface
	older, newer string // programs
	replicas     []*replica
	python       string
	env          []string // of Celery
}

// celeryApp is a Celery application with one task.
const celeryApp = `
import os
from celery import Celery
app = Celery("skewapp", broker=os.environ["BROKER_URL"])
app.conf.update(task_ignore_result=True)
@app.task(name="work")
def work():
    pass
`

// runWorkers has a node run the pods of a Deployment, whose workers are Celery's.
func (s *skew) runWorkers(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	check(t, os.WriteFile(filepath.Join(folder, "skewapp.py"), []byte(celeryApp), 0o600))
	python, err := setup.Python()
	check(t, err)
	s.env = []string{"PYTHONPATH=" + folder, "BROKER_URL=" + s.redis.URL(0), "PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore"}
	s.python = python
	node, err := procnode.New(procnode.Options{Config: s.cluster.RESTConfig(), LogDir: filepath.Join(folder, "pods")})
	check(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		check(t, <-stopped)
	})
	s.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: demo}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers:
      - name: worker
        image: none
        command: [%q, -m, celery, --app=skewapp, worker, --pool=solo, --hostname=celery@$(POD_NAME)]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: PYTHONPATH, value: %q}
        - {name: BROKER_URL, value: %q}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: worker
  namespace: demo
  annotations: {celery-hpa.io/scale-to-zero: "true", celery-hpa.io/idle-window: 2s, celery-hpa.io/protect-nodes: "true"}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks, selector: {matchLabels: {queue: celery}}}, target: {type: AverageValue, averageValue: "1"}}
`, python, folder, s.redis.URL(0)))
}

// begin starts a replica that takes part.
func (s *skew) begin(t *testing.T, program string) *replica {
	t.Helper()
	r := s.start(t, program)
	r.awaitReady(t)
	s.entrance.add(r.address)
	return r
}

// term has one version lead, and the other one follow.
func (s *skew) term(t *testing.T, program string) {
	leader := s.handOver(t, program)
	s.awaitReplicas(t, 0)
	before := leader.log.Count("Scaled to zero")
	s.send(t)
	s.awaitReplicas(t, 1)
	s.awaitReplicas(t, 0)
	if leader.log.Count("Scaled to zero") == before {
		t.Errorf("it was not %s that scaled to zero", leader.pod)
	}
	s.checkPeace(t)
}

// handOver stops replicas of the other version while one leads, and starts them again.
func (s *skew) handOver(t *testing.T, program string) *replica {
	t.Helper()
	leader := s.awaitLeader(t, s.replicas...)
	if leader.program == program {
		return leader
	}
	s.entrance.remove(leader.address)
	leader.signal(t, syscall.SIGTERM)
	check(t, leader.await(t))
	s.replicas = slices.DeleteFunc(s.replicas, func(r *replica) bool { return r == leader })
	next := s.awaitLeader(t, s.replicas...)
	s.replicas = append(s.replicas, s.begin(t, leader.program))
	return next
}

// send sends a task, as a producer does.
func (s *skew) send(t *testing.T) {
	t.Helper()
	cmd := exec.Command(s.python, "-c", "import skewapp; skewapp.work.delay()")
	cmd.Env = append(os.Environ(), s.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("send a task: %v: %s", err, out)
	}
}

// awaitReplicas blocks until there are to be no workers, or at least so many.
func (s *skew) awaitReplicas(t *testing.T, n int32) {
	t.Helper()
	eventually.Succeeds(t, patience, fmt.Sprintf("the workers are to be %d", n), func() error {
		found, err := s.clients.AppsV1().Deployments(space).Get(t.Context(), "worker", metav1.GetOptions{})
		if err == nil && (*found.Spec.Replicas == 0) != (n == 0) {
			return fmt.Errorf("they are to be %d", *found.Spec.Replicas)
		}
		return err
	})
}

// repairInTurn has the newer one write the Secret of the certificate, and then the older
// one.
func (s *skew) repairInTurn(t *testing.T) {
	for _, program := range []string{s.newer, s.older} {
		s.handOver(t, program)
		if data := s.repairSecret(t); len(data["next.crt"]) == 0 {
			t.Errorf("the Secret has no key of the newer version: %q", slices.Sorted(maps.Keys(data)))
		}
	}
	s.send(t)
	s.awaitReplicas(t, 1)
	s.awaitReplicas(t, 0)
}

// repairSecret spoils the Secret, which the leading one repairs. What that does not know
// stays.
func (s *skew) repairSecret(t *testing.T) map[string][]byte {
	t.Helper()
	secrets := s.clients.CoreV1().Secrets(system)
	before, err := secrets.Get(t.Context(), "celery-hpa-serving-cert", metav1.GetOptions{})
	check(t, err)
	before.Data["tls.key"] = []byte("spoilt")
	_, err = secrets.Update(t.Context(), before, metav1.UpdateOptions{})
	check(t, err)
	eventually.Succeeds(t, patience, "the Secret is repaired", func() error {
		after, err := secrets.Get(t.Context(), before.Name, metav1.GetOptions{})
		if err == nil && bytes.Equal(after.Data["tls.key"], []byte("spoilt")) {
			return fmt.Errorf("it is spoilt")
		}
		return err
	})
	after, err := secrets.Get(t.Context(), before.Name, metav1.GetOptions{})
	check(t, err)
	for key := range before.Data {
		if len(after.Data[key]) == 0 {
			t.Errorf("the key %s of the Secret is gone", key)
		}
	}
	return after.Data
}

// watching is for how long nothing is to happen: every keeper compares each ten seconds what
// there is with what it wants (registration.checkInterval).
const watching = 11 * time.Second

// checkPeace fails if what replicas share is written, while nothing happens. The numbers
// in the status of a CeleryBroker may change once in a minute; the Lease is renewed.
func (s *skew) checkPeace(t *testing.T) {
	t.Helper()
	s.awaitTrust(t)
	writes := map[string]int{}
	versions := s.versions(t)
	for end := time.Now().Add(watching); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now := s.versions(t)
		for name, version := range now {
			if version != versions[name] {
				writes[name]++
			}
		}
		versions = now
	}
	t.Logf("writes while nothing happened: %v", writes)
	for name, n := range writes {
		if most := map[bool]int{true: 1}[strings.HasPrefix(name, "celerybrokers")]; n > most {
			t.Errorf("%s was written %d times while nothing happened, want %d at the most", name, n, most)
		}
	}
	broker, err := s.objects.Resource(resource("celery-hpa.io", "v1alpha1", "celerybrokers")).Namespace(space).Get(t.Context(), "redis", metav1.GetOptions{})
	check(t, err)
	status, _ := broker.Object["status"].(map[string]any)
	if s.newerHasLed() && status["readers"] != int64(7) {
		t.Errorf("what the newer one has written into the status is gone: %v", status)
	}
}

// newerHasLed tells whether a replica of the newer version has ever led.
func (s *skew) newerHasLed() bool {
	return slices.ContainsFunc(s.all, func(r *replica) bool {
		return r.program == s.newer && r.log.Count("This replica leads now") > 0
	})
}

// awaitTrust blocks until the certificates have settled: one authority is trusted, after
// a new one was made.
func (s *skew) awaitTrust(t *testing.T) {
	t.Helper()
	settled := time.Now()
	before := s.versions(t)
	eventually.Succeeds(t, patience, "what replicas share is settled", func() error {
		now := s.versions(t)
		for name, version := range now {
			if version != before[name] && !strings.HasPrefix(name, "celerybrokers") {
				before, settled = now, time.Now()
			}
		}
		if time.Since(settled) < watching/2 {
			return fmt.Errorf("something was written lately")
		}
		return nil
	})
}

func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

// versions are the resourceVersions of what replicas share.
func (s *skew) versions(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, shared := range []struct {
		of              schema.GroupVersionResource
		namespace, name string
	}{
		{resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"), "", "celery-hpa"},
		{resource("apiregistration.k8s.io", "v1", "apiservices"), "", "v1beta1.external.metrics.k8s.io"},
		{resource("", "v1", "secrets"), system, "celery-hpa-serving-cert"},
		{resource("celery-hpa.io", "v1alpha1", "celerybrokers"), space, "redis"},
		{resource("apps", "v1", "deployments"), space, "worker"},
	} {
		client := s.objects.Resource(shared.of)
		object, err := client.Namespace(shared.namespace).Get(t.Context(), shared.name, metav1.GetOptions{})
		check(t, err)
		found[shared.of.Resource+"/"+shared.name] = object.GetResourceVersion()
	}
	return found
}
