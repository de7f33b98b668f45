package delegate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	adapter "sigs.k8s.io/custom-metrics-apiserver/test-adapter/provider"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver"
	"github.com/celery-hpa/celery-hpa/pkg/serve/apiserver/delegate"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// patience bounds every wait for a state. Only a failing test waits that long.
	patience = 60 * time.Second
	// foreign is a metric that the test adapter has, in every namespace.
	foreign = "my-external-metric"
	system  = "celery-hpa"
)

// mayAsk gives celery-hpa the right that the chart gives with a delegate.
const mayAsk = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "celery-hpa:delegate"}
rules:
- {apiGroups: [external.metrics.k8s.io], resources: ["*"], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "celery-hpa:delegate"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "celery-hpa:delegate"}
subjects: [{kind: ServiceAccount, name: celery-hpa, namespace: celery-hpa}]
`

// fixture is a control plane, and what both servers need.
type fixture struct {
	*localkube.Cluster
	folder     string
	kubeconfig string // of celery-hpa
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	cluster, err := localkube.Start(t.Context(), localkube.Options{Output: os.Stdout})
	check(t, err)
	t.Cleanup(func() { check(t, cluster.Stop()) })
	f := &fixture{Cluster: cluster, folder: t.TempDir()}
	rights, err := playground.Rights()
	check(t, err)
	for _, text := range []string{string(rights), mayAsk} {
		_, err := f.KubectlInput(t.Context(), strings.NewReader(text), "apply", "-f", "-")
		check(t, err)
	}
	f.kubeconfig, err = f.KubeconfigFor("system:serviceaccount:"+system+":celery-hpa", "system:serviceaccounts", "system:serviceaccounts:"+system)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(f.folder, "ca.crt"), f.CABundle(), 0o600))
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// options are for serving on a free port of loopback, with a certificate for these names.
func (f *fixture) options(t *testing.T, hosts ...string) *apiserver.Options {
	t.Helper()
	cert, key, err := f.ServingCert(hosts...)
	check(t, err)
	o := apiserver.NewOptions()
	o.Kubeconfig = f.kubeconfig
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddLibraryFlags(flags)
	folder := t.TempDir()
	for name, content := range map[string][]byte{"tls-cert-file": cert, "tls-private-key-file": key} {
		check(t, os.WriteFile(filepath.Join(folder, name), content, 0o600))
		check(t, flags.Set(name, filepath.Join(folder, name)))
	}
	check(t, flags.Set("bind-address", "127.0.0.1"))
	check(t, flags.Set("secure-port", strconv.Itoa(servers.FreePort(t))))
	return o
}

// startAdapter serves the test adapter's metrics, and returns where, under which name it
// lists them, and how to stop it.
func (f *fixture) startAdapter(t *testing.T) (url, listed string, stop func()) {
	t.Helper()
	objects, err := dynamic.NewForConfig(f.RESTConfig())
	check(t, err)
	metrics, _ := adapter.NewFakeProvider(objects, meta.NewDefaultRESTMapper(nil))
	fine := func() error { return nil }
	server, err := apiserver.NewSecure(f.options(t, "127.0.0.1"), apiserver.Content{
		Provider: metrics, Metrics: http.NotFoundHandler(), Ready: fine, Alive: fine,
	})
	check(t, err)
	listed = fmt.Sprintf(`"name":%q`, metrics.ListAllExternalMetrics()[0].Metric)
	return "https://" + server.Addr().String(), listed, run(t, server.Run)
}

// run runs something until it is stopped, or the test ends.
func run(t *testing.T, what func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- what(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("a server has ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// startCeleryHPA runs it as the cluster's server of external metrics.
func (f *fixture) startCeleryHPA(t *testing.T, other delegate.Options, brokersFile string) {
	t.Helper()
	o := f.options(t, "celery-hpa."+system+".svc")
	a, err := app.New(t.Context(), app.Options{
		BrokersFile: brokersFile, Server: o, Namespace: system, Identity: "pod", Version: "test",
		Delegate: other, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	check(t, err)
	run(t, a.Run)
	_, port, _ := strings.Cut(a.Addr().String(), ":")
	number, err := strconv.Atoi(port)
	check(t, err)
	check(t, f.AggregateExternalMetrics(t.Context(), system, "celery-hpa", int32(number), f.CABundle())) //nolint:gosec // a port
	check(t, f.AwaitExternalMetrics(t.Context()))
}

// get asks the API server as an HPA does.
func (f *fixture) get(t *testing.T, path string) (string, error) {
	t.Helper()
	out, err := f.Kubectl(t.Context(), "get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"+path)
	return string(out), err
}

func TestCeleryHPATakesThePlaceOfAnother(t *testing.T) {
	f := newFixture(t)
	redis := servers.StartRedis(t, servers.RedisOptions{})
	check(t, redis.Admin().LPush(t.Context(), "celery", "a", "b").Err())
	brokers := filepath.Join(f.folder, "brokers.yaml")
	check(t, os.WriteFile(brokers, []byte("apiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {name: redis}\nspec: {url: {value: '"+
		redis.URL(0)+"'}, queues: [{name: celery}]}\n"), 0o600))
	url, listed, stop := f.startAdapter(t)
	f.startCeleryHPA(t, delegate.Options{URL: url, CAFile: filepath.Join(f.folder, "ca.crt")}, brokers)

	const ours = "/namespaces/default/celery_queue_backlog?labelSelector=queue%3Dcelery"
	answers := func(path, want string) func() error {
		return func() error {
			if said, err := f.get(t, path); err != nil || !strings.Contains(said, want) {
				return errors.Join(fmt.Errorf("%s answers %s, want %s", path, said, want), err)
			}
			return nil
		}
	}
	eventually.Succeeds(t, patience, "our metric is served", answers(ours, `"value":"2"`))
	eventually.Succeeds(t, patience, "the other adapter's metric is served", answers("/namespaces/anything/"+foreign+"?labelSelector=foo%3Dbar", `"metricName":"my-external-metric"`))
	eventually.Succeeds(t, patience, "the other adapter's metrics are listed", answers("", listed))
	eventually.Succeeds(t, patience, "our metrics are listed", answers("", `"name":"celery_queue_backlog"`))
	t.Run("its errors are passed back", func(t *testing.T) {
		if _, err := f.get(t, "/namespaces/default/"+foreign+"?labelSelector=foo%3D%3D%3Dbar"); err == nil || !strings.Contains(err.Error(), "BadRequest") {
			t.Errorf("of a selector that is none it says %v", err)
		}
	})
	t.Run("what was passed on once is not passed on again", func(t *testing.T) {
		config := rest.CopyConfig(f.RESTConfig())
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				r = r.Clone(r.Context())
				r.Header.Set("Celery-Hpa-Passed-On", "true")
				return next.RoundTrip(r)
			})
		})
		client, err := rest.HTTPClientFor(config)
		check(t, err)
		for path, want := range map[string]int{"/namespaces/default/" + foreign: http.StatusLoopDetected, ours: http.StatusOK} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+"/apis/external.metrics.k8s.io/v1beta1"+path, nil)
			check(t, err)
			response, err := client.Do(request)
			check(t, err)
			check(t, response.Body.Close())
			if response.StatusCode != want {
				t.Errorf("%s answers %s, want %d", path, response.Status, want)
			}
		}
	})
	t.Run("while it is down, ours are served", func(t *testing.T) {
		stop()
		_, err := f.get(t, "/namespaces/default/"+foreign)
		if err == nil || !strings.Contains(err.Error(), "ServiceUnavailable") || !strings.Contains(err.Error(), "which is asked for all others, does not answer") {
			t.Errorf("of its metric it says %v", err)
		}
		if err := answers(ours, `"value":"2"`)(); err != nil {
			t.Error(err)
		}
		if err := answers("", listed)(); err != nil {
			t.Error("its list is forgotten: ", err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

func TestDelegateThatDoesNotAnswerIsAnError(t *testing.T) {
	ours := nothing{}
	p, err := delegate.New(&rest.Config{Host: "https://127.0.0.1:1"}, delegate.Options{URL: "https://127.0.0.1:1"}, ours, slog.New(slog.DiscardHandler))
	check(t, err)
	_, err = p.GetExternalMetric(t.Context(), "default", labels.Everything(), provider.ExternalMetricInfo{Metric: foreign})
	if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "https://127.0.0.1:1") {
		t.Errorf("it says %v", err)
	}
}

// nothing has no metrics.
type nothing struct {
	provider.ExternalMetricsProvider
}

// ListAllExternalMetrics implements provider.ExternalMetricsProvider.
func (nothing) ListAllExternalMetrics() []provider.ExternalMetricInfo { return nil }
