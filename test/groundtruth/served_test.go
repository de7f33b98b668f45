package groundtruth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// What the HPA is told is the truth too, in every metric, and across queues.
func TestServedMetricsAreTheTruth(t *testing.T) {
	t.Parallel()
	f, _ := newFlow(t, setup{}, servers.WorkerOptions{Concurrency: 2, LateAck: true, Prefetch: 4, Queues: []string{"a"}})
	f.publish(t, servers.CeleryTask{N: 10, Queue: "a", Countdown: time.Hour})
	f.settlesAt(t, map[string]counts{"a": {InFlight: 10, Scheduled: 10}})
	f.publish(t, servers.CeleryTask{N: 50, Queue: "a", Gate: "gate", Priority: new(6)})
	f.publish(t, servers.CeleryTask{N: 30, Queue: "b"})
	f.settlesAt(t, map[string]counts{"a": {42, 18, 10}, "b": {Backlog: 30}})

	metrics := serve(t, f.url, "redis: {}")
	f.await(t, func() string {
		return metrics.differ(t, "a", map[string]int64{
			"celery_queue_backlog": 42, "celery_queue_in_flight": 18,
			"celery_queue_scheduled": 10, "celery_queue_tasks": 50,
		})
	})
	f.await(t, func() string { return metrics.differ(t, "a,b", map[string]int64{"celery_queue_tasks": 80}) })
	f.OpenGate(t, "gate")
	f.await(t, func() string {
		return metrics.differ(t, "a", map[string]int64{
			"celery_queue_backlog": 0, "celery_queue_in_flight": 10,
			"celery_queue_scheduled": 10, "celery_queue_tasks": 0,
		})
	})
}

// served is the external metrics API of a running program.
type served struct{ address string }

// serve runs the program on a free loopback port until the test ends. Kind is the
// part of the brokers file that is about the kind of broker.
func serve(t *testing.T, brokerURL, kind string) served {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "url"), []byte(brokerURL), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "brokers.yaml")
	text := fmt.Sprintf(`apiVersion: celery-hpa.io/v1alpha1
kind: CeleryBroker
metadata: {name: truth}
spec:
  url: {file: url}
  sampling: {interval: 100ms, timeout: 10s}
  %s
`, kind)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	a, err := app.New(ctx, app.Options{BrokersFile: file, Local: true, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the program ended with %v", err)
		}
	})
	return served{a.Addr().String()}
}

// differ says in what metrics of queues, summed as the HPA does, are not as
// wanted. It is empty if they are.
func (s served) differ(t *testing.T, queues string, want map[string]int64) string {
	t.Helper()
	got := map[string]int64{}
	for name := range want {
		value, err := s.value(t, name, queues)
		if err != nil {
			return err.Error()
		}
		got[name] = value
	}
	return cmp.Diff(want, got)
}

func (s served) value(t *testing.T, name, queues string) (int64, error) {
	t.Helper()
	n, err := s.milli(t, name, queues)
	return n / 1000, err
}

// milli is the value of a metric in thousandths.
func (s served) milli(t *testing.T, name, queues string) (int64, error) {
	t.Helper()
	selector := url.QueryEscape("queue in (" + queues + ")")
	path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/" + name + "?labelSelector=" + selector
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", name, response.Status)
	}
	var list externalmetrics.ExternalMetricValueList
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return 0, err
	}
	var sum int64
	for _, item := range list.Items {
		sum += item.Value.MilliValue()
	}
	return sum, nil
}
