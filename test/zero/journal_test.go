package zero_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const eventRights = `[{apiGroups: [""], resources: [events], verbs: [create, patch]}]`

func (f *fixture) testJournal(t *testing.T) {
	for rule, test := range map[string]func(*testing.T){
		"kubectl describe shows what was done, and why":          f.describes,
		"what does not change is said once, and again later":     f.saysOnce,
		"what is said again is counted":                          f.countsRepetitions,
		"many events of a sort are few, and do not hide another": f.boundsEvents,
		"what is long is cut":                                    f.cutsMessages,
		"an event on its way at the end is written":              f.finishesEvents,
		"a mistake is the leader's to tell":                      f.leavesMistakesToLeader,
		"without the right it says so once, and later goes on":   f.needsEventRight,
		"an API server that does not answer costs no event":      f.outlastsSilence,
		"a namespace that ends is nothing to worry about":        f.toleratesEndingNamespaces,
	} {
		t.Run(rule, test)
	}
}

// leads is whether this replica does.
type leads struct{ atomic.Bool }

func (l *leads) Leads() bool { return l.Load() }

// desk is a journal with an HPA to write about.
type desk struct {
	*journal.Journal
	*fixture
	namespace string
	target    target.Target
	leads     *leads
	log       *syncBuffer
	stop      func()
	ending    <-chan struct{} // closed when the journal is told to end
}

const describedHPA = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker, namespace: NS}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: airflow-worker}
  maxReplicas: 20
  metrics:
  - type: External
    external: {metric: {name: celery_queue_tasks}, target: {type: AverageValue, averageValue: "1"}}
`

// desk makes a journal whose events are written with the rights of that service.
func (f *fixture) desk(t *testing.T, rights string) *desk {
	t.Helper()
	namespace := f.namespace(t)
	return f.deskAs(t, namespace, f.as(t, namespace, "journalist", rights))
}

func (f *fixture) deskAs(t *testing.T, namespace string, config *rest.Config) *desk {
	t.Helper()
	f.apply(t, strings.ReplaceAll(describedHPA, "NS", namespace))
	hpa, err := f.admin.AutoscalingV2().HorizontalPodAutoscalers(namespace).Get(t.Context(), "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{
		fixture: f, namespace: namespace, leads: &leads{}, log: &syncBuffer{},
		target: target.Target{
			Namespace: namespace, HPA: "worker", UID: hpa.UID,
			APIVersion: "apps/v1", Kind: "Deployment", Name: "airflow-worker",
		},
	}
	d.leads.Store(true)
	if d.Journal, err = journal.New(clients.CoreV1(), d.leads, logger(d.log), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	ending := make(chan struct{})
	d.ending = ending
	d.stop = run(t, func(ctx context.Context) error {
		context.AfterFunc(ctx, func() { close(ending) })
		return d.Run(ctx)
	})
	return d
}

// events are ours among those that kubectl describes the HPA with, as "type reason
// message", or with "×N" behind the reason where they were counted. What still waits
// has been written by then: no more can be said.
func (d *desk) events(t *testing.T) []string {
	t.Helper()
	d.stop()
	described := d.kubectl(t, "describe", "hpa/worker", "--namespace="+d.namespace)
	line := regexp.MustCompile(`(?m)^  (Normal|Warning)\s+(\S+)\s+\S+ ?(?:\(x(\d+) over \S+\))?\s+celery-hpa\s+(.*)$`)
	var events []string
	for _, parts := range line.FindAllStringSubmatch(described, -1) {
		times := ""
		if parts[3] != "" {
			times = " ×" + parts[3]
		}
		events = append(events, parts[1]+" "+parts[2]+times+" "+parts[4])
	}
	slices.Sort(events)
	return events
}

func (d *desk) expect(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, d.events(t)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func because(reason string) idle.Decision { return idle.Decision{Reason: reason} }

func (f *fixture) describes(t *testing.T) {
	d := f.desk(t, eventRights)
	at := time.Now() // of all of them
	d.Slept(d.target, 1, because("idle for 5m0s, 300 samples"), at)
	d.Woke(d.target, 3, because("messages have arrived in queue redis/celery"), 42*time.Millisecond+300*time.Microsecond, at)
	d.Raised(d.target, 3, 8, because("more messages have arrived"), at)
	d.Refused(d.target, idle.Work, "queue redis/celery: 3 messages wait", at)
	d.Refused(d.target, idle.Unknown, "queue redis/low: no answer within 2s", at)
	d.Refused(d.target, idle.Work, `admission webhook "budget.example.com" denied the request: too cheap`, at)
	d.Failed(d.target, idle.Sleep, errors.New("scale Deployment airflow-worker to 0: no answer"), at)
	d.Failed(d.target, idle.Wake, errors.New("scale Deployment airflow-worker to 3: no answer"), at)
	wrong := d.target
	wrong.Zero.Mistake = errors.New("another HPA scales the same Deployment")
	d.Mistaken(wrong, at)
	d.Decided(d.target, idle.Observation{}, because("is no event"), at)
	d.Delayed(d.target, time.Second, at)
	d.expect(t,
		"Normal ScaledToZero Scaled Deployment airflow-worker from 1 to 0: idle for 5m0s, 300 samples",
		"Normal WokenUp Scaled Deployment airflow-worker from 0 to 3, 42ms after work was known of: messages have arrived in queue redis/celery",
		"Normal WakeDelayed Deployment airflow-worker waits for its turn to wake up: many are due at once",
		"Normal RaisedAfterWake Scaled Deployment airflow-worker from 3 to 8: more messages have arrived",
		"Normal ZeroRefused Deployment airflow-worker stays above zero after a look at the last moment: there was work again",
		"Warning ZeroRefused Deployment airflow-worker stays above zero after a look at the last moment: queue redis/low: no answer within 2s",
		`Warning ZeroRefused Deployment airflow-worker stays above zero after a look at the last moment: admission webhook "budget.example.com" denied the request: too cheap`,
		"Warning ZeroScaleFailed Could not scale to zero, trying again: scale Deployment airflow-worker to 0: no answer",
		"Warning ZeroScaleFailed Could not wake up from zero, trying again: scale Deployment airflow-worker to 3: no answer",
		"Warning ZeroMistake Does not go to zero, although it is asked for: another HPA scales the same Deployment",
	)
}

func (f *fixture) saysOnce(t *testing.T) {
	d := f.desk(t, eventRights)
	at := time.Now()
	for i := range 20 { // for ten minutes, and the look afresh finds other work each time
		d.Refused(d.target, idle.Work, fmt.Sprintf("queue redis/celery: %d messages wait", i), at.Add(time.Duration(i)*30*time.Second))
	}
	const refused = "Normal ZeroRefused ×2 Deployment airflow-worker stays above zero after a look at the last moment: there was work again"
	d.expect(t, refused)
}

func (f *fixture) countsRepetitions(t *testing.T) {
	d := f.desk(t, eventRights)
	at := time.Now()
	for i := range 3 {
		d.Refused(d.target, idle.Busy, "pod worker-x: executes 1 task", at.Add(time.Duration(2*i)*time.Second))
		d.Slept(d.target, 1, because("idle for 5m0s"), at.Add(time.Duration(2*i+1)*time.Second))
	}
	d.expect(t,
		"Normal ScaledToZero ×3 Scaled Deployment airflow-worker from 1 to 0: idle for 5m0s",
		"Normal ZeroRefused ×3 Deployment airflow-worker stays above zero after a look at the last moment: there was work again",
	)
}

func (f *fixture) boundsEvents(t *testing.T) {
	d := f.desk(t, eventRights)
	at := time.Now()
	for i := range int32(100) {
		d.Raised(d.target, i, i+1, because("more messages have arrived"), at.Add(time.Duration(i)*time.Second))
	}
	d.Slept(d.target, 1, because("idle for 5m0s"), at.Add(time.Hour))
	events := d.events(t)
	if len(events) > 15 || !slices.Contains(events, "Normal ScaledToZero Scaled Deployment airflow-worker from 1 to 0: idle for 5m0s") {
		t.Errorf("%d events, want few, and the last one among them:\n%s", len(events), strings.Join(events, "\n"))
	}
}

func (f *fixture) cutsMessages(t *testing.T) {
	d := f.desk(t, eventRights)
	d.Slept(d.target, 1, because(strings.Repeat("é", 2000)), time.Now())
	const begin = "Scaled Deployment airflow-worker from 1 to 0: "
	d.expect(t, "Normal ScaledToZero "+begin+strings.Repeat("é", (1024-len(begin)-3)/2)+"…")
}

func (f *fixture) leavesMistakesToLeader(t *testing.T) {
	d := f.desk(t, eventRights)
	wrong := d.target
	at := time.Now()
	d.leads.Store(false)
	wrong.Zero.Mistake = errors.New("said by another replica")
	d.Mistaken(wrong, at)
	wrong.Zero.Mistake = errors.New("minReplicas is 2")
	d.Mistaken(wrong, at)
	d.leads.Store(true)
	for minute := range 60 {
		d.Mistaken(wrong, at.Add(time.Duration(minute)*time.Minute))
	}
	d.expect(t, "Warning ZeroMistake ×2 Does not go to zero, although it is asked for: minReplicas is 2")
}

func (f *fixture) needsEventRight(t *testing.T) {
	namespace := f.namespace(t)
	config, err := f.cluster.ConfigFor("journalist")
	if err != nil {
		t.Fatal(err)
	}
	d := f.deskAs(t, namespace, config)
	d.Slept(d.target, 1, because("lost"), time.Now())
	missing := "the right to create and patch events in namespace " + namespace + " is missing"
	eventually.Succeeds(t, patience, "what is missing is said", func() error { return contains(d.log.String(), missing) })
	f.as(t, namespace, "journalist", eventRights)
	eventually.Succeeds(t, patience, "events are written again", func() error {
		d.Slept(d.target, 1, because("said since"), time.Now())
		return contains(d.log.String(), "Events can be written again")
	})
	if n := strings.Count(d.log.String(), missing); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, d.log.String())
	}
	if events := strings.Join(d.events(t), "\n"); strings.Contains(events, "lost") || !strings.Contains(events, "said since") {
		t.Errorf("want what was said since, and nothing from before:\n%s", events)
	}
}

func (f *fixture) outlastsSilence(t *testing.T) {
	namespace := f.namespace(t)
	config := f.as(t, namespace, "journalist", eventRights)
	var attempts atomic.Int32
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if attempts.Add(1) <= 2 {
				return nil, errors.New("connection reset")
			}
			return next.RoundTrip(request)
		})
	})
	d := f.deskAs(t, namespace, config)
	d.Slept(d.target, 1, because("idle for 5m0s"), time.Now())
	eventually.Succeeds(t, patience, "it is written", func() error { return contains(d.log.String(), "Events can be written again") })
	d.expect(t, "Normal ScaledToZero Scaled Deployment airflow-worker from 1 to 0: idle for 5m0s")
}

func (f *fixture) finishesEvents(t *testing.T) {
	namespace := f.namespace(t)
	config := f.as(t, namespace, "journalist", eventRights)
	var d *desk
	onItsWay := make(chan struct{})
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			close(onItsWay)
			<-d.ending
			return next.RoundTrip(request)
		})
	})
	d = f.deskAs(t, namespace, config)
	d.Slept(d.target, 1, because("idle for 5m0s"), time.Now())
	<-onItsWay
	d.expect(t, "Normal ScaledToZero Scaled Deployment airflow-worker from 1 to 0: idle for 5m0s")
}

func (f *fixture) toleratesEndingNamespaces(t *testing.T) {
	d := f.desk(t, eventRights)
	// A finalizer keeps the namespace from its end for as long as the test needs.
	d.kubectl(t, "patch", "hpa/worker", "--namespace="+d.namespace, "--type=merge", `--patch={"metadata":{"finalizers":["example.com/test"]}}`)
	d.kubectl(t, "delete", "namespace", d.namespace, "--wait=false")
	t.Cleanup(func() {
		if _, err := f.cluster.Kubectl(context.WithoutCancel(t.Context()), "patch", "hpa/worker", "--namespace="+d.namespace, "--type=merge", `--patch={"metadata":{"finalizers":null}}`); err != nil {
			t.Error(err)
		}
	})
	d.Slept(d.target, 1, because("idle for 5m0s"), time.Now())
	d.stop()
	if text := d.log.String(); strings.Contains(text, "level=WARN") {
		t.Errorf("want no warning:\n%s", text)
	}
}
