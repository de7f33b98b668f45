package admission_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// celeryHPA is the server that the API server asks. What it finds at a target is what
// the test decides.
type celeryHPA struct {
	handler http.Handler
	config  *tls.Config
	address string
	server  *http.Server
	stopped chan error

	mu      sync.Mutex
	looks   map[string]look // by namespace
	asked   []string        // path and path of the object, of each request
	refused []string
}

// look is what is found at a target.
type look func(ctx context.Context) idle.Observation

func nothing(context.Context) idle.Observation { return waiting(0) }

func messages(context.Context) idle.Observation { return waiting(3) }

// hanging is a broker that does not answer.
func hanging(ctx context.Context) idle.Observation {
	<-ctx.Done()
	return idle.Observation{QueuesErr: errors.New("the broker does not answer")}
}

func panicking(context.Context) idle.Observation { panic("a mistake") }

func waiting(n int64) idle.Observation {
	known := func(n int64) queue.Count { return queue.Known(n, time.Now()) }
	return idle.Observation{Queues: []idle.Queue{{Name: "redis/celery", Depth: queue.Depth{
		Backlog: known(n), InFlight: known(0), Scheduled: known(0),
	}}}}
}

func (f *fixture) newCeleryHPA(t *testing.T) *celeryHPA {
	t.Helper()
	cert, key, err := f.cluster.ServingCert()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &celeryHPA{
		config: &tls.Config{Certificates: []tls.Certificate{pair}}, address: "127.0.0.1:0",
		looks: map[string]look{},
	}
	looks, err := admission.NewLooks(c, f.targets, resources{}, logger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(admission.ZeroPath, admission.NewZero(looks, c))
	mux.Handle(admission.NoticePath, admission.NewNotice(looks))
	c.handler = c.recording(t, mux)
	c.start(t)
	t.Cleanup(func() { c.stop(t) })
	return c
}

// Look implements admission.Looker.
func (c *celeryHPA) Look(ctx context.Context, t target.Target) idle.Observation {
	c.mu.Lock()
	found := c.looks[t.Namespace]
	c.mu.Unlock()
	if found == nil {
		found = nothing
	}
	return found(ctx)
}

// find decides what is found at the targets of a namespace.
func (c *celeryHPA) find(namespace string, found look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks[namespace] = found
}

// Refused implements admission.Refusals.
func (c *celeryHPA) Refused(t target.Target, cause idle.Cause, message string, _ time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = append(c.refused, fmt.Sprintf("%s: %s: %s", t, cause, message))
}

// told returns the refusals since the last time.
func (c *celeryHPA) told() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := c.refused
	c.refused = nil
	return told
}

func (c *celeryHPA) url() string { return "https://" + c.address }

// start listens where it has listened before, if it has.
func (c *celeryHPA) start(t *testing.T) {
	t.Helper()
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	c.address = listener.Addr().String()
	c.server, c.stopped = &http.Server{Handler: c.handler, TLSConfig: c.config}, make(chan error, 1) //nolint:gosec // loopback
	go func() { c.stopped <- c.server.ServeTLS(listener, "", "") }()
}

func (c *celeryHPA) stop(t *testing.T) {
	t.Helper()
	if err := c.server.Close(); err != nil {
		t.Error(err)
	}
	<-c.stopped
}

// recording notes what is asked.
func (c *celeryHPA) recording(t *testing.T, next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var review admissionv1.AdmissionReview
		if err != nil || json.Unmarshal(body, &review) != nil || review.Request == nil {
			t.Errorf("asked with %q, %v", body, err)
			return
		}
		c.mu.Lock()
		c.asked = append(c.asked, question(request.URL.Path, review.Request.Resource.Group, review.Request.Resource.Resource, review.Request.Namespace, review.Request.Name))
		c.mu.Unlock()
		request.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(response, request)
	})
}

func question(path, group, resource, namespace, name string) string {
	return path + " " + resource + "." + group + " " + namespace + "/" + name
}

// askedAbout tells whether a webhook was asked about a workload since the last time.
func (c *celeryHPA) askedAbout(path string, w workload) bool {
	group := "apps"
	if w.APIVersion != "apps/v1" {
		group = "example.org"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := question(path, group, w.Resource, w.Namespace, w.Name)
	before := len(c.asked)
	c.asked = slices.DeleteFunc(c.asked, func(other string) bool { return other == asked })
	return len(c.asked) < before
}
