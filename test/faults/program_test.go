package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/celery-hpa/celery-hpa/pkg/app"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// patience bounds every wait for a state. Only a failing test waits that long.
const patience = 60 * time.Second

// The sampling of most tests: often, and with a maximum age that no slow machine
// reaches.
const often = "sampling: {interval: 100ms, timeout: 5s, maxAge: 1h}"

// shortly makes a broker's last counts too old soon.
const shortly = "sampling: {interval: 100ms, timeout: 1s, maxAge: 2s}"

func TestMain(m *testing.M) {
	redis.DiscardClientLog()
	goleak.VerifyTestMain(m,
		// The Redis client probes a server that is gone once a second, and notices
		// that it was closed at the next time.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"),
		// The API server library's check of klog's health, begun with the first
		// question for /readyz, asks klog every minute as long as the process lives.
		goleak.IgnoreAnyFunction("k8s.io/apimachinery/pkg/util/wait.Forever"),
		// klog flushes its output as long as the process lives; the API server
		// library imports it.
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// document is a CeleryBroker in a brokers file. Spec is in YAML's flow style.
func document(namespace, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: celery-hpa.io/v1alpha1\nkind: CeleryBroker\nmetadata: {namespace: %s, name: %s}\nspec: {%s}\n",
		namespace, name, spec)
}

// atURL is the field of a spec that says where the broker is.
func atURL(url string) string { return "url: {value: '" + url + "'}" }

// program is a running celery-hpa. Everything that it says is kept.
type program struct {
	folder  string
	address string
	client  *http.Client
	log     *servers.Transcript
	answers *servers.Transcript
}

// run starts a program with a brokers file. Files are further ones beside it, by
// name. It is stopped when the test ends, which fails if the program then fails.
func run(t *testing.T, brokers string, files map[string]string) *program {
	t.Helper()
	p := &program{
		folder: t.TempDir(), client: &http.Client{Transport: &http.Transport{}, Timeout: patience},
		log: &servers.Transcript{}, answers: &servers.Transcript{},
	}
	for name, content := range files {
		p.write(t, name, content)
	}
	p.write(t, "brokers.yaml", brokers)
	a, err := app.New(t.Context(), app.Options{
		BrokersFile: filepath.Join(p.folder, "brokers.yaml"),
		Local:       true, Listen: "127.0.0.1:0", Version: "test",
		Log: slog.New(slog.NewTextHandler(p.log, nil)),
	})
	if err != nil {
		t.Fatalf("start the program: %v", err)
	}
	p.address = a.Addr().String()
	p.serve(t, a)
	return p
}

func (p *program) serve(t *testing.T, a *app.App) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("the program ended with an error: %v", err)
		}
		if t.Failed() {
			t.Logf("the program's log:\n%s", p.log)
		}
	})
}

// write makes a file beside the brokers file, or the brokers file itself, hold
// the text.
func (p *program) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hides fails the test when it ends if the program has ever said one of the
// secrets, in its log or in an answer. It asks all there is to ask before.
func (p *program) hides(t *testing.T, secrets ...string) {
	t.Cleanup(func() {
		for _, path := range []string{"/metrics", "/readyz?verbose", "/livez?verbose", "/apis/external.metrics.k8s.io/v1beta1"} {
			p.get(path)
		}
		for _, secret := range secrets {
			for line := range strings.Lines(p.log.String() + p.answers.String()) {
				if strings.Contains(line, secret) {
					t.Errorf("the program has said %q: %s", secret, line)
				}
			}
		}
	})
}

// get asks for a path and returns the answer's code and body; without an answer,
// 0 and the reason.
func (p *program) get(path string) (int, string) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	response, err := p.client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	fmt.Fprintf(p.answers, "GET %s\n%d %s\n", path, response.StatusCode, body)
	return response.StatusCode, string(body)
}

// answer is what the external metrics API said.
type answer struct {
	Code int
	// Message is that of an error.
	Message string
	// Values are by "broker/queue".
	Values map[string]string
	// Oldest is the timestamp of the oldest value, in whole seconds.
	Oldest time.Time
}

// ask asks the external metrics API for a metric, as the HPA does.
func (p *program) ask(namespace, metric, selector string) answer {
	code, body := p.get("/apis/external.metrics.k8s.io/v1beta1/namespaces/" + namespace + "/" + metric + "?labelSelector=" + url.QueryEscape(selector))
	var reply struct {
		Message string
		Items   []struct {
			MetricLabels map[string]string
			Timestamp    time.Time
			Value        string
		}
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		return answer{Message: fmt.Sprintf("%d %s: %v", code, body, err)}
	}
	a := answer{Code: code, Message: reply.Message, Values: map[string]string{}}
	for _, item := range reply.Items {
		a.Values[item.MetricLabels["broker"]+"/"+item.MetricLabels["queue"]] = item.Value
		if a.Oldest.IsZero() || item.Timestamp.Before(a.Oldest) {
			a.Oldest = item.Timestamp
		}
	}
	return a
}

// metrics asks for /metrics, as a message.
func (p *program) metrics() answer {
	code, body := p.get("/metrics")
	return answer{Code: code, Message: body}
}

// tasks asks for celery_queue_tasks of a queue in the namespace default.
func (p *program) tasks(queue string) answer {
	return p.ask("default", "celery_queue_tasks", "queue="+queue)
}

// String shows an answer in a failure.
func (a answer) String() string { return fmt.Sprintf("%d %v %s", a.Code, a.Values, a.Message) }

// is tells whether the answer is one value.
func (a answer) is(queue, value string) bool {
	return a.Code == http.StatusOK && len(a.Values) == 1 && a.Values[queue] == value
}

// says tells whether the answer is an error of that code with each of the texts
// in its message.
func (a answer) says(code int, texts ...string) bool {
	for _, text := range texts {
		if !strings.Contains(a.Message, text) {
			return false
		}
	}
	return a.Code == code && len(a.Values) == 0
}

// await polls an answer until it is good.
func await(t *testing.T, what string, ask func() answer, good func(answer) bool) answer {
	t.Helper()
	var a answer
	eventually.Succeeds(t, patience, what, func() error {
		if a = ask(); good(a) {
			return nil
		}
		return fmt.Errorf("the last answer is %s", a)
	})
	return a
}

// awaitTasks waits until celery_queue_tasks of a queue of broker prod is value.
func (p *program) awaitTasks(t *testing.T, queue, value string) {
	t.Helper()
	await(t, queue+" = "+value, func() answer { return p.tasks(queue) }, func(a answer) bool { return a.is("prod/"+queue, value) })
}

// awaitError waits until celery_queue_tasks of a queue is a 503 with the texts.
func (p *program) awaitError(t *testing.T, queue string, texts ...string) {
	t.Helper()
	await(t, fmt.Sprintf("an error of %s with %q", queue, texts), func() answer { return p.tasks(queue) },
		func(a answer) bool { return a.says(http.StatusServiceUnavailable, texts...) })
}

// awaitMetric waits until /metrics has a line.
func (p *program) awaitMetric(t *testing.T, line string) {
	t.Helper()
	await(t, "the metric "+line, p.metrics, func(a answer) bool { return strings.Contains("\n"+a.Message, "\n"+line+"\n") })
}

// awaitLog waits until the program has logged a text.
func (p *program) awaitLog(t *testing.T, text string) {
	t.Helper()
	await(t, "the log "+text, func() answer { return answer{Message: p.log.String()} },
		func(a answer) bool { return strings.Contains(a.Message, text) })
}

// checkHealth compares the code of /readyz or /livez.
func (p *program) checkHealth(t *testing.T, path string, want int) {
	t.Helper()
	if code, body := p.get(path + "?verbose"); code != want {
		t.Errorf("%s is %d, want %d:\n%s", path, code, want, body)
	}
}

// hasSeries tells whether a text of /metrics has a series whose name begins so.
func hasSeries(text, prefix string) bool {
	return strings.Contains("\n"+text, "\n"+prefix)
}
