package externalmetrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ref(namespace, name string) queue.BrokerRef {
	return queue.BrokerRef{Namespace: namespace, Name: name}
}

func depth(backlog, inFlight, scheduled int64) queue.Depth {
	return queue.Depth{
		Backlog:   queue.Known(backlog, t0),
		InFlight:  queue.Known(inFlight, t0.Add(-time.Second)),
		Scheduled: queue.Known(scheduled, t0),
	}
}

// world has two brokers in airflow, one that fails in media, one that was never
// asked in fresh, and one whose queues are still being searched in searching.
func world() *snapshot.Store {
	store := snapshot.New()
	declare := func(r queue.BrokerRef) {
		store.Declare(snapshot.Declaration{Ref: r, MaxAge: 10 * time.Second})
	}
	put := func(r queue.BrokerRef, pending bool, queues map[string]queue.Depth) {
		declare(r)
		store.Put(r, &queue.Sample{At: t0, Queues: queues, DiscoveryPending: pending})
	}
	broken := depth(0, 0, 0)
	broken.Backlog = queue.Unknown(errors.New("the key holds no list"))
	put(ref("airflow", "a"), false, map[string]queue.Depth{
		"default": depth(5, 3, 1), "slow": depth(0, 0, 0), "broken": broken,
	})
	put(ref("airflow", "b"), false, map[string]queue.Depth{"default": depth(7, 0, 0), "gpu": depth(1, 1, 0)})
	declare(ref("media", "down"))
	store.Fail(ref("media", "down"), errors.New("connection refused"), t0)
	put(ref("media", "up"), false, map[string]queue.Depth{"video": depth(2, 0, 0)})
	declare(ref("fresh", "new"))
	put(ref("searching", "s"), true, map[string]queue.Depth{"found": depth(1, 0, 0)})
	return store
}

// ask returns the answer as text: items, or status code and message.
func ask(t *testing.T, namespace, metric, selector string, after time.Duration) string {
	t.Helper()
	parsed, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	p := externalmetrics.New(world(), nil, func() time.Time { return t0.Add(after) })
	list, err := p.GetExternalMetric(context.Background(), namespace, parsed, provider.ExternalMetricInfo{Metric: metric})
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			t.Fatalf("the error is no API status: %v", err)
		}
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Message)
	}
	if len(list.Items) == 0 {
		t.Fatal("an empty list, which the HPA cannot tell from zero")
	}
	var items []string
	for _, i := range list.Items {
		if i.MetricName != metric {
			t.Errorf("item of metric %q, want %q", i.MetricName, metric)
		}
		items = append(items, fmt.Sprintf("%s/%s=%s", i.MetricLabels["broker"], i.MetricLabels["queue"], i.Value.String()))
	}
	return strings.Join(items, " ")
}

func TestAnswers(t *testing.T) {
	const tasks = "celery_queue_tasks"
	for _, c := range []struct{ rule, namespace, metric, selector, want string }{
		{"one queue of one broker", "airflow", tasks, "broker=a,queue=default", "a/default=7"},
		{"without a broker every broker of the namespace matches", "airflow", tasks, "queue=default", "a/default=7 b/default=7"},
		{"a fresh zero is a zero", "airflow", tasks, "queue=slow", "a/slow=0"},
		{"backlog", "airflow", "celery_queue_backlog", "broker=a,queue=default", "a/default=5"},
		{"in flight", "airflow", "celery_queue_in_flight", "broker=a,queue=default", "a/default=3"},
		{"scheduled", "airflow", "celery_queue_scheduled", "broker=a,queue=default", "a/default=1"},
		{"in", "airflow", tasks, "queue in (slow,gpu)", "a/slow=0 b/gpu=2"},
		{"in, twice", "airflow", tasks, "queue in (slow,gpu),queue in (gpu,slow,default)", "a/slow=0 b/gpu=2"},
		{"==", "airflow", tasks, "queue==gpu", "b/gpu=2"},
		{"!= of a queue", "airflow", tasks, "broker=b,queue!=gpu", "b/default=7"},
		{"notin", "airflow", tasks, "queue notin (broken,default)", "a/slow=0 b/gpu=2"},
		{"!= of a broker", "airflow", tasks, "broker!=a,queue=default", "b/default=7"},
		{"exists", "airflow", tasks, "broker=b,queue", "b/default=7 b/gpu=2"},
		{"everything of a broker", "airflow", tasks, "broker=b", "b/default=7 b/gpu=2"},
		{"does not exist", "airflow", tasks, "!queue", `404 no queue in namespace airflow matches the selector "!queue"`},
		{"contradicting demands", "airflow", tasks, "queue=slow,queue!=slow", `404 no queue in namespace airflow matches the selector "queue=slow,queue!=slow"`},

		{"a misspelt queue", "airflow", tasks, "queue=defualt", `404 no broker of namespace airflow has a queue "defualt" (closest of the known: default, gpu, broken); a queue that exists only while it is in use can be declared in spec.queues of its CeleryBroker`},
		{"one misspelt among several", "airflow", tasks, "queue in (default,slwo)", `404 no broker of namespace airflow has a queue "slwo" (closest of the known: slow, gpu, broken); a queue that exists only while it is in use can be declared in spec.queues of its CeleryBroker`},
		{"a misspelt broker", "airflow", tasks, "broker=aa,queue=default", `404 namespace airflow has no CeleryBroker "aa" (closest of the known: a, b)`},
		{"a label that does not exist", "airflow", tasks, "que=default", `404 queue metrics have no label "que"; their labels are broker and queue`},
		{"a metric that does not exist", "airflow", "celery_queue_length", "queue=default", `404 there is no metric "celery_queue_length"; the metrics are celery_busy_workers, celery_queue_backlog, celery_queue_in_flight, celery_queue_oldest_task_age_seconds, celery_queue_scheduled, celery_queue_tasks, celery_queue_wait_seconds, celery_queue_work_seconds, celery_worker_active_tasks, celery_worker_slots`},
		{"a namespace sees its own brokers only", "other", tasks, "queue=default", "404 namespace other has no CeleryBroker, and a broker's metrics exist in its own namespace only"},

		{"an unknown count", "airflow", tasks, "queue=broken", "503 broker airflow/a: queue broken: the key holds no list"},
		{"an unknown count makes the sum unknown", "airflow", tasks, "broker=a", "503 broker airflow/a: queue broken: the key holds no list"},
		{"the other counts of that queue are known", "airflow", "celery_queue_in_flight", "queue=broken", "a/broken=0"},
		{"never sampled", "fresh", tasks, "queue=default", "503 broker fresh/new has not been sampled yet"},
		{"while a broker is out of reach it may have the queue", "media", tasks, "queue=video", "503 another broker has queue video, but this one may have it too (name a broker in the selector to ask it alone): broker media/down has not been sampled yet: connection refused"},
		{"naming the broker leaves the failing one out", "media", tasks, "broker=up,queue=video", "up/video=2"},
		{"while queues are searched none is misspelt", "searching", tasks, "queue=later", "503 broker searching/s: the search for its queues has not ended yet"},
		{"what is found is served during the search", "searching", tasks, "queue=found", "s/found=1"},
		{"a sum over all queues waits for the search", "searching", tasks, "broker=s", "503 broker searching/s: the search for its queues has not ended yet"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ask(t, c.namespace, c.metric, c.selector, 0)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAStaleCountIsAnError(t *testing.T) {
	want := "503 broker airflow/a: the last good sample is 11s old, which is over the maximum age of 10s"
	if diff := cmp.Diff(want, ask(t, "airflow", "celery_queue_backlog", "queue=slow", 11*time.Second)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTheTimestampIsThatOfTheOldestPart(t *testing.T) {
	p := externalmetrics.New(world(), nil, func() time.Time { return t0 })
	selector, err := labels.Parse("broker=a,queue=default")
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.GetExternalMetric(context.Background(), "airflow", selector, provider.ExternalMetricInfo{Metric: "celery_queue_tasks"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list.Items[0].Timestamp.Time, t0.Add(-time.Second); !got.Equal(want) {
		t.Errorf("timestamp %s, want that of the in-flight half, %s", got, want)
	}
}

func TestEveryMetricIsListed(t *testing.T) {
	var names []string
	for _, info := range externalmetrics.New(world(), nil, time.Now).ListAllExternalMetrics() {
		names = append(names, info.Metric)
	}
	want := []string{
		"celery_queue_backlog", "celery_queue_in_flight", "celery_queue_scheduled", "celery_queue_tasks",
		"celery_queue_oldest_task_age_seconds", "celery_queue_wait_seconds", "celery_queue_work_seconds",
		"celery_busy_workers", "celery_worker_active_tasks", "celery_worker_slots",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// BenchmarkRead measures one query of one queue among 10,000.
func BenchmarkRead(b *testing.B) {
	store := snapshot.New()
	queues := map[string]queue.Depth{}
	for i := range 10_000 {
		queues[fmt.Sprintf("queue-%d", i)] = depth(int64(i), 0, 0)
	}
	store.Declare(snapshot.Declaration{Ref: ref("n", "b"), MaxAge: time.Hour})
	store.Put(ref("n", "b"), &queue.Sample{At: t0, Queues: queues})
	p := externalmetrics.New(store, nil, func() time.Time { return t0 })
	selector := labels.SelectorFromSet(labels.Set{"queue": "queue-77"})
	for b.Loop() {
		if _, err := p.GetExternalMetric(b.Context(), "n", selector, provider.ExternalMetricInfo{Metric: "celery_queue_tasks"}); err != nil {
			b.Fatal(err)
		}
	}
}
