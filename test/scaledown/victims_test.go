package scaledown_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/act/admission"
	"github.com/celery-hpa/celery-hpa/pkg/act/admission/registration"
	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const (
	replicas = 12
	kept     = 4
	// rounds is how often to try what could succeed by chance once in 495 times.
	rounds = 20
)

// webhook is the server that the API server asks, with what it was asked.
type webhook struct {
	handler http.Handler
	config  *tls.Config
	address string
	server  *http.Server
	stopped chan error

	mu    sync.Mutex
	asked []string // namespace/name of each request
}

func (f *fixture) testVictims(t *testing.T) {
	f.webhook = f.newWebhook(t)
	f.register(t, "https://"+f.webhook.address+admission.VictimsPath)
	run(t, registration.NewKeeper(f.ours.AdmissionregistrationV1(), f.targets, logger(t)).Run)
	t.Run("a scale-down leaves exactly the busy pods", func(t *testing.T) { f.keepsBusy(t, rounds, f.scale) })
	t.Run("so does a change of the Deployment itself", func(t *testing.T) { f.keepsBusy(t, 1, f.replace) })
	t.Run("a scale-up and a scale-down to zero are nobody's business", f.asksAboutLoweringAlone)
	t.Run("a dry run writes nothing", f.dryRun)
	t.Run("people are warned of busy workers that will end", f.warns)
	t.Run("other Deployments are never asked about", f.leavesOthersAlone)
	t.Run("without the server scaling goes on", f.goesOnWithout)
	f.checkConditionsEvaluate(t)
}

// keepsBusy scales down again and again with other pods busy each time.
func (f *fixture) keepsBusy(t *testing.T, rounds int, scale func(*testing.T, string, int)) {
	namespace := f.workers(t)
	for range rounds {
		pods := f.awaitPods(t, namespace, "worker", replicas)
		rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		busy := names(pods[:kept])
		f.fleets.set(observe(deploymentRef(namespace, "worker"), pods, busy...))
		scale(t, namespace, kept)
		left := names(f.awaitPods(t, namespace, "worker", kept))
		if diff := cmp.Diff(busy, left); diff != "" {
			t.Fatalf("pods left (-busy +left):\n%s", diff)
		}
		f.scale(t, namespace, replicas)
	}
}

// workers makes a namespace with a Deployment of workers, scaled by an HPA, and
// returns once the API server asks about it.
func (f *fixture) workers(t *testing.T) string {
	t.Helper()
	namespace := f.namespace(t)
	f.apply(t, deployment(namespace, "worker", replicas)+"---"+hpa(namespace, "worker", "worker", "celery_queue_tasks"))
	f.awaitPods(t, namespace, "worker", replicas)
	eventually.Succeeds(t, patience, "the API server asks about the Deployment", func() error {
		f.kubectl(t, "scale", "--namespace="+namespace, "deployment/worker", "--replicas=1", "--dry-run=server")
		if f.webhook.askedAbout(namespace+"/worker") == 0 {
			return errors.New("it did not ask")
		}
		return nil
	})
	f.webhook.forget()
	return namespace
}

func (f *fixture) scale(t *testing.T, namespace string, replicas int) {
	t.Helper()
	f.kubectl(t, "scale", "--namespace="+namespace, "deployment/worker", fmt.Sprintf("--replicas=%d", replicas))
}

func (f *fixture) replace(t *testing.T, namespace string, replicas int) {
	t.Helper()
	f.kubectl(t, "patch", "--namespace="+namespace, "deployment/worker", fmt.Sprintf(`--patch={"spec": {"replicas": %d}}`, replicas))
}

func (f *fixture) asksAboutLoweringAlone(t *testing.T) {
	namespace := f.workers(t)
	f.scale(t, namespace, replicas+1)
	f.scale(t, namespace, 0)
	f.scale(t, namespace, 1)
	f.replace(t, namespace, 0)
	f.awaitPods(t, namespace, "worker", 0)
	if n := f.webhook.askedAbout(namespace + "/worker"); n != 0 {
		t.Errorf("asked %d times, want never", n)
	}
}

func (f *fixture) dryRun(t *testing.T) {
	namespace := f.workers(t)
	pods := f.awaitPods(t, namespace, "worker", replicas)
	f.fleets.set(observe(deploymentRef(namespace, "worker"), pods, pods[0].Name))
	f.kubectl(t, "scale", "--namespace="+namespace, "deployment/worker", "--replicas=2", "--dry-run=server")
	if diff := cmp.Diff(versions(pods), versions(f.pods(t, namespace, "worker"))); diff != "" {
		t.Errorf("pods were written (-before +after):\n%s", diff)
	}
}

func (f *fixture) warns(t *testing.T) {
	namespace := f.workers(t)
	pods := f.awaitPods(t, namespace, "worker", replicas)
	f.fleets.set(observe(deploymentRef(namespace, "worker"), pods, names(pods)...))
	warnings := &warnings{}
	config := f.cluster.RESTConfig()
	config.WarningHandlerWithContext = warnings
	f.scaleAs(t, config, namespace, replicas-1)
	want := "celery-hpa: 12 pods of Deployment " + namespace + "/worker may be executing tasks, and 11 stay: at least 1 of them will be told to end."
	if len(warnings.texts) != 1 || !strings.HasPrefix(warnings.texts[0], want) {
		t.Errorf("warnings %q, want one that begins with %q", warnings.texts, want)
	}
	f.awaitPods(t, namespace, "worker", replicas-1)
	hpa, err := f.cluster.ConfigFor("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
	if err != nil {
		t.Fatal(err)
	}
	hpa.WarningHandlerWithContext = warnings
	f.scaleAs(t, hpa, namespace, replicas-2)
	if len(warnings.texts) != 1 {
		t.Errorf("the HPA was warned: %q", warnings.texts)
	}
}

func (f *fixture) leavesOthersAlone(t *testing.T) {
	ours := f.workers(t)
	other := f.namespace(t)
	f.apply(t, deployment(other, "worker", 3)+"---"+hpa(other, "worker", "worker", "somebody_elses_metric")+
		"---"+deployment(ours, "other", 3))
	f.kubectl(t, "scale", "--namespace="+other, "deployment/worker", "--replicas=1")
	f.kubectl(t, "scale", "--namespace="+ours, "deployment/other", "--replicas=1")
	f.scale(t, ours, replicas-1)
	for name, want := range map[string]int{other + "/worker": 0, ours + "/other": 0, ours + "/worker": 1} {
		if n := f.webhook.askedAbout(name); n != want {
			t.Errorf("asked %d times about %s, want %d", n, name, want)
		}
	}
}

func (f *fixture) goesOnWithout(t *testing.T) {
	namespace := f.workers(t)
	f.webhook.stop(t)
	defer f.webhook.start(t)
	f.scale(t, namespace, kept)
	f.awaitPods(t, namespace, "worker", kept)
}

// checkConditionsEvaluate asks the API server whether a match condition of ours was
// ever without a result. It counts only errors, so that none have no series.
func (f *fixture) checkConditionsEvaluate(t *testing.T) {
	for line := range strings.Lines(f.kubectl(t, "get", "--raw", "/metrics")) {
		if strings.HasPrefix(line, "apiserver_admission_match_condition_evaluation_errors_total") {
			t.Errorf("conditions could not be evaluated: %s", line)
		}
	}
}

func (f *fixture) newWebhook(t *testing.T) *webhook {
	t.Helper()
	cert, key, err := f.cluster.ServingCert()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	victims, err := admission.NewVictims(f.fleets, f.targets, drain.NewMarker(f.ours.CoreV1()), logger(t), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w := &webhook{config: &tls.Config{Certificates: []tls.Certificate{pair}}, address: "127.0.0.1:0"}
	w.handler = w.recording(t, victims)
	w.start(t)
	t.Cleanup(func() { w.stop(t) })
	return w
}

// start listens where it has listened before, if it has.
func (w *webhook) start(t *testing.T) {
	t.Helper()
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(admission.VictimsPath, w.handler)
	w.server, w.stopped = &http.Server{Handler: mux, TLSConfig: w.config}, make(chan error, 1) //nolint:gosec // loopback
	go func() { w.stopped <- w.server.ServeTLS(listener, "", "") }()
}

func (w *webhook) stop(t *testing.T) {
	t.Helper()
	if err := w.server.Close(); err != nil {
		t.Error(err)
	}
	<-w.stopped
}

// recording notes who is asked about.
func (w *webhook) recording(t *testing.T, next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var review admissionv1.AdmissionReview
		if err != nil || json.Unmarshal(body, &review) != nil || review.Request == nil {
			t.Errorf("asked with %q, %v", body, err)
			return
		}
		w.mu.Lock()
		w.asked = append(w.asked, review.Request.Namespace+"/"+review.Request.Name)
		w.mu.Unlock()
		request.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(response, request)
	})
}

func (w *webhook) askedAbout(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, asked := range w.asked {
		if asked == name {
			n++
		}
	}
	return n
}

// forget starts to count anew.
func (w *webhook) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = nil
}

// names are sorted.
func names(pods []corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// versions are those of pods, by name.
func versions(pods []corev1.Pod) map[string]string {
	versions := map[string]string{}
	for _, p := range pods {
		versions[p.Name] = p.ResourceVersion
	}
	return versions
}

// warnings collects what the API server warns of.
type warnings struct{ texts []string }

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.texts = append(w.texts, text)
}
