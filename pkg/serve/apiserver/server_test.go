package apiserver

// In the package, to measure the handler without a socket and a client.

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
)

func content(store *snapshot.Store) Content {
	return Content{
		Provider: externalmetrics.New(store, nil, time.Now),
		Metrics:  http.NotFoundHandler(),
		Ready:    store.Ready,
		Alive:    func() error { return nil },
	}
}

func TestOnlyLoopbackIsServedWithoutACluster(t *testing.T) {
	for address, allowed := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true, "127.8.9.1:0": true,
		"0.0.0.0:0": false, ":0": false, "[::]:0": false, "192.0.2.1:80": false, "example.org:80": false, "127.0.0.1": false, "": false,
	} {
		if err := checkLoopback(address); (err == nil) != allowed {
			t.Errorf("address %q: %v, want allowed = %v", address, err, allowed)
		}
	}
}

// BenchmarkServe measures what the server takes for a read of one queue among
// 10,000: every filter and the encoding, without the socket and the client.
func BenchmarkServe(b *testing.B) {
	store := snapshot.New()
	ref := queue.BrokerRef{Namespace: "demo", Name: "redis"}
	store.Declare(snapshot.Declaration{Ref: ref, MaxAge: time.Hour})
	queues := map[string]queue.Depth{}
	now := time.Now()
	for i := range 10_000 {
		known := queue.Known(int64(i), now)
		queues[fmt.Sprintf("queue-%d", i)] = queue.Depth{Backlog: known, InFlight: known, Scheduled: known}
	}
	queues["wanted"] = queues["queue-77"]
	store.Put(ref, &queue.Sample{At: now, Queues: queues})
	config := newConfig(content(store))
	config.ExternalAddress = "127.0.0.1:1"
	allowAll(config)
	server, err := install(config, content(store))
	if err != nil {
		b.Fatal(err)
	}
	prepared := server.PrepareRun()
	b.Cleanup(prepared.Destroy)
	var took []time.Duration
	for b.Loop() {
		request := httptest.NewRequestWithContext(b.Context(), http.MethodGet,
			"/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/celery_queue_tasks?labelSelector=queue%3Dwanted", nil)
		response := httptest.NewRecorder()
		began := time.Now()
		prepared.Handler.ServeHTTP(response, request)
		took = append(took, time.Since(began))
		if response.Code != http.StatusOK {
			b.Fatalf("%d %s", response.Code, response.Body)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}
