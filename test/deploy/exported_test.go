package deploy_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/certificates"
	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/act/leader"
	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// family is a metric that celery-hpa serves.
type family struct {
	name, kind, help string
	labels           []string // but for le
}

// exported is every metric that celery-hpa has of its own, sorted by name. Each
// collector has something to tell of everything that it describes. That these are all
// that the program registers is proven by test/prometheus.
func exported(t *testing.T) []family {
	t.Helper()
	registry := &register{Registry: prometheus.NewRegistry()}
	registerObserved(registry)
	registerDone(t, registry)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var found []family
	for _, f := range families {
		one := family{name: f.GetName(), kind: strings.ToLower(f.GetType().String()), help: f.GetHelp()}
		for _, pair := range f.GetMetric()[0].GetLabel() {
			one.labels = append(one.labels, pair.GetName())
		}
		found = append(found, one)
	}
	registry.checkComplete(t, found)
	return found
}

// register remembers what it was given.
type register struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *register) Register(c prometheus.Collector) error {
	r.collectors = append(r.collectors, c)
	return r.Registry.Register(c)
}

// MustRegister implements prometheus.Registerer.
func (r *register) MustRegister(collectors ...prometheus.Collector) {
	r.collectors = append(r.collectors, collectors...)
	r.Registry.MustRegister(collectors...)
}

// checkComplete fails if a collector describes what it did not tell of.
func (r *register) checkComplete(t *testing.T, found []family) {
	t.Helper()
	told := map[string]bool{}
	for _, f := range found {
		told[f.name] = true
	}
	for _, c := range r.collectors {
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for desc := range descs {
			name := regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(desc.String())[1]
			if !told[name] {
				t.Errorf("%s is described, and was not seen: give it something to tell of", name)
			}
		}
	}
}

// registerObserved registers what tells of brokers, workers and targets.
func registerObserved(registry *register) {
	ref, now := queue.BrokerRef{Namespace: "default", Name: "redis"}, time.Now()
	store := snapshot.New()
	store.Declare(snapshot.Declaration{Ref: ref, MaxAge: time.Hour})
	one := queue.Known(1, now)
	store.Put(ref, &queue.Sample{At: now, Delayed: &one, Queues: map[string]queue.Depth{
		"celery": {Backlog: one, InFlight: one, Scheduled: one, Oldest: one, Wait: one, Work: one},
	}})
	exporter := promexport.New(store, time.Now)
	exporter.Sampled(ref, time.Millisecond, nil)
	fleets := promexport.NewFleets(workforce{}, workforce{}, time.Now)
	fleets.Heard(ref, nil)
	lookouts := promexport.NewLookouts()
	lookouts.Lookout(ref, true, nil)
	lookouts.Read(ref, 1, time.Millisecond, nil)
	registry.MustRegister(exporter, fleets, lookouts, promexport.NewTargets(workforce{}, workforce{}))
}

// registerDone registers what tells of the program itself and of what it does.
func registerDone(t *testing.T, registry *register) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brokers.yaml")
	const broker = "apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: redis}\nspec: {url: {value: redis://127.0.0.1:1/0}}\n"
	if err := os.WriteFile(path, []byte(broker), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	file, err := brokersfile.New(path, log)
	if err != nil {
		t.Fatal(err)
	}
	registry.MustRegister(app.OfProcess("test", file)...)
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	elector, err := leader.New(clients.CoordinationV1(), "celery-hpa", "pod", log, registry)
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := journal.New(clients.CoreV1(), elector, log, registry)
	if err != nil {
		t.Fatal(err)
	}
	decisions.Decided(scaled(), idle.Observation{Replicas: 1}, idle.Decision{Cause: idle.Window, Remaining: time.Hour}, time.Now())
	certificate := certificates.DefaultOptions()
	certificate.Secret, certificate.Namespace = "celery-hpa-serving-cert", "celery-hpa"
	keeper, err := certificates.NewKeeper(&rest.Config{Host: emptyCluster(t), ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, certificate, elector.Leads, log, registry)
	if err != nil {
		t.Fatal(err)
	}
	keeper.Prepare(t.Context())
	if _, err := admission.NewVictims(nil, nil, nil, log, registry); err != nil {
		t.Fatal(err)
	}
	if _, err := admission.NewLooks(nil, nil, nil, log, registry); err != nil {
		t.Fatal(err)
	}
}

// emptyCluster is the address of an API server that has nothing, and takes everything.
func emptyCluster(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
			return
		}
		object, _ := io.ReadAll(r.Body) // before the answer begins
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(object)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// scaled is a target.
func scaled() target.Target {
	return target.Target{Namespace: "default", HPA: "worker", APIVersion: "apps/v1", Kind: "Deployment", Name: "worker", MinReplicas: 1, MaxReplicas: 5}
}

// workforce is one broker, and one fleet of one worker, which an HPA scales.
type workforce struct{}

func (workforce) Brokers() map[queue.BrokerRef]error {
	return map[queue.BrokerRef]error{{Namespace: "default", Name: "redis"}: nil}
}

func (workforce) Of(queue.BrokerRef) []workers.Worker { return nil }

func (workforce) HasHost(string, string) bool { return true }

func (workforce) Fleets(namespace string) []fleet.Fleet {
	one := queue.Known(1, time.Now())
	return []fleet.Fleet{{
		Ref: fleet.Ref{Namespace: namespace, Kind: fleet.Deployment, Name: "worker"}, Heard: true,
		Members: []fleet.Member{{Pod: "worker-1", State: fleet.Busy, Ready: true, Active: one, Slots: one}},
	}}
}

func (workforce) All() []target.Target { return []target.Target{scaled()} }

func (workforce) Scale(fleet.Ref) (fleet.Scale, error) { return fleet.Scale{Replicas: 1}, nil }

// seriesNames are the names of the series of these metrics, with their labels.
func seriesNames(families []family) map[string][]string {
	known := map[string][]string{}
	for _, f := range families {
		suffixes := []string{""}
		if f.kind == "histogram" {
			suffixes = []string{"_bucket", "_sum", "_count"}
		}
		for _, suffix := range suffixes {
			known[f.name+suffix] = append([]string{}, f.labels...) // not nil, also without labels
		}
	}
	return known
}
