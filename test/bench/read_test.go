package bench_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/hack/playground"
)

const (
	metricPath    = "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + playground.Namespace + "/celery_queue_tasks"
	referencePath = "/api/v1/namespaces/" + playground.Namespace
	// Many short rounds, in turn: the speed of a shared machine changes within
	// seconds.
	rounds    = 20
	roundTime = time.Second
)

func start(b *testing.B) *playground.Playground {
	b.Helper()
	p, err := playground.Start(b.Context(), playground.Options{Output: os.Stderr})
	b.Cleanup(func() {
		if err := p.Stop(); err != nil {
			b.Errorf("stop the playground: %v", err)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkReadThroughAggregator reads a metric through the API server and, in
// turn, a Namespace from the API server: the least that any read through it
// costs. It reports medians over many rounds; a ratio is of a round and the one
// after it.
func BenchmarkReadThroughAggregator(b *testing.B) {
	p := start(b)
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			var metric, reference []load
			run(b, p.Cluster.RESTConfig(), metricPath, clients) // warms up
			for range rounds {
				metric = append(metric, run(b, p.Cluster.RESTConfig(), metricPath, clients))
				reference = append(reference, run(b, p.Cluster.RESTConfig(), referencePath, clients))
			}
			b.ReportMetric(median(values(metric, load.rate)), "reads/s")
			b.ReportMetric(median(values(reference, load.rate)), "namespaces/s")
			b.ReportMetric(100*median(ratios(metric, reference, load.rate)), "rate-%-of-namespace")
			b.ReportMetric(median(values(metric, load.p50)), "p50-µs")
			b.ReportMetric(median(ratios(metric, reference, load.p50)), "p50-×-namespace")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkReadDirect reads a metric from celery-hpa itself, over TLS, as one
// client: what its server takes, an upper bound since the client's part is in it.
func BenchmarkReadDirect(b *testing.B) {
	p := start(b)
	config := p.Cluster.RESTConfig()
	config.Host = p.Address()
	l := run(b, config, metricPath, 1)
	b.ReportMetric(float64(l.quantile(0.5).Microseconds()), "p50-µs")
	b.ReportMetric(float64(l.quantile(0.99).Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op")
}

// load is what some clients saw who read as fast as they could.
type load struct {
	took    []time.Duration
	elapsed time.Duration
}

func (l load) quantile(q float64) time.Duration {
	return l.took[int(q*float64(len(l.took)-1))]
}

// run reads a path with that many clients for the length of a round.
func run(b *testing.B, config *rest.Config, path string, clients int) load {
	b.Helper()
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	get := func(ctx context.Context) error {
		return set.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error()
	}
	if err := get(b.Context()); err != nil { // connects
		b.Fatal(err)
	}
	began := time.Now()
	deadline := began.Add(roundTime)
	took := make([][]time.Duration, clients)
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			for at := time.Now(); at.Before(deadline); at = time.Now() {
				if err := get(b.Context()); err != nil {
					b.Errorf("GET %s: %v", path, err)
					return
				}
				took[c] = append(took[c], time.Since(at))
			}
		})
	}
	wait.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	return load{took: all, elapsed: time.Since(began)}
}

// rate is in reads per second.
func (l load) rate() float64 { return float64(len(l.took)) / l.elapsed.Seconds() }

// p50 is in microseconds.
func (l load) p50() float64 { return float64(l.quantile(0.5).Microseconds()) }

func values(loads []load, of func(load) float64) []float64 {
	all := make([]float64, 0, len(loads))
	for _, l := range loads {
		all = append(all, of(l))
	}
	return all
}

// ratios compares round by round.
func ratios(loads, references []load, of func(load) float64) []float64 {
	all := make([]float64, 0, len(loads))
	for i, l := range loads {
		all = append(all, of(l)/of(references[i]))
	}
	return all
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
