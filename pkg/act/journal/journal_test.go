package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/pkg/act/journal"
	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// leads is whether this replica does.
type leads bool

func (l leads) Leads() bool { return bool(l) }

// desk is a journal of which nothing is written to a cluster.
type desk struct {
	*journal.Journal
	registry *prometheus.Registry
	log      bytes.Buffer
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{registry: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	d.Journal = newJournal(t, log, d.registry)
	return d
}

func newJournal(t testing.TB, log *slog.Logger, registry prometheus.Registerer) *journal.Journal {
	t.Helper()
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.New(clients.CoreV1(), leads(true), log, registry)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func worker() target.Target {
	return target.Target{
		Namespace: "airflow", HPA: "worker", APIVersion: "apps/v1", Kind: "Deployment", Name: "airflow-worker",
		UID: "1", Zero: target.Zero{Wanted: true, Window: 5 * time.Minute},
	}
}

func decision(action idle.Action, cause idle.Cause, reason string) idle.Decision {
	return idle.Decision{Action: action, Cause: cause, Reason: reason}
}

func waits() idle.Decision { return decision(idle.Hold, idle.Window, "idle, but not for 5m0s yet") }

// start is when the tests begin.
func start() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func TestOnlyDecisionsThatDifferAreKept(t *testing.T) {
	d := newDesk(t)
	at := start()
	work := decision(idle.Hold, idle.Work, "there is work in queue redis/celery")
	other := decision(idle.Hold, idle.Work, "there is work in queue redis/low")
	var want []string
	for i, made := range []idle.Decision{work, work, other, other, work, waits(), decision(idle.Check, idle.Idle, "x"), decision(idle.Hold, idle.Idle, "x"), decision(idle.Hold, idle.Window, "x")} {
		now := at.Add(time.Duration(i) * time.Second)
		d.Decided(worker(), idle.Observation{Replicas: int32(i)}, made, now)
		if i != 1 && i != 3 {
			want = append(want, fmt.Sprintf("%d: %s %s %s", i, made.Action, made.Cause, made.Reason))
		}
	}
	var got []string
	for _, e := range d.Entries("airflow", "worker") {
		got = append(got, fmt.Sprintf("%d: %s %s %s", *e.Replicas, e.Action, e.Cause, e.Reason))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if n := strings.Count(d.log.String(), "msg=Decided"); n != len(want) {
		t.Errorf("logged %d decisions, want %d:\n%s", n, len(want), d.log.String())
	}
}

func TestTheLatestDecisionsAreKept(t *testing.T) {
	d := newDesk(t)
	quiet := target.Target{Namespace: "airflow", HPA: "quiet"} // nothing is decided of it later
	decide := func(t target.Target) {
		for i := range 120 {
			d.Decided(t, idle.Observation{}, decision(idle.Hold, idle.Work, fmt.Sprint(i)), start())
		}
	}
	decide(quiet)
	for _, tt := range []struct{ targets, want int }{{2, 50}, {200, 50}, {400, 25}, {2000, 10}} {
		decide(worker())
		for i := 2; i < tt.targets; i++ {
			d.Decided(target.Target{Namespace: "others", HPA: fmt.Sprint(i)}, idle.Observation{}, waits(), start())
		}
		for _, rule := range []string{"when others come", "when more is decided"} {
			for _, hpa := range []string{"worker", "quiet"} {
				entries, first := d.Entries("airflow", hpa), fmt.Sprint(120-tt.want)
				if len(entries) != tt.want || entries[0].Reason != first || entries[tt.want-1].Reason != "119" {
					t.Errorf("%d targets, %s: kept %d entries of %s, want %d from %s on", tt.targets, rule, len(entries), hpa, tt.want, first)
				}
			}
			decide(worker())
		}
	}
}

func TestWhatBecameOfADecisionIsKeptWithIt(t *testing.T) {
	sleep, wake := decision(idle.Sleep, idle.Idle, "idle for 5m0s"), decision(idle.Wake, idle.Arrived, "messages have arrived")
	raise := decision(idle.Raise, idle.Arrived, "more messages have arrived")
	hold := decision(idle.Hold, idle.Work, "at a second look there is work in queue redis/celery")
	at := start()
	for _, tt := range []struct {
		rule string
		made idle.Decision
		tell func(d *desk)
		want string
	}{
		{"nothing yet", sleep, func(*desk) {}, ""},
		{"slept", sleep, func(d *desk) { d.Slept(worker(), 1, sleep, at) }, "scaled from 1 to 0"},
		{"woken", wake, func(d *desk) { d.Woke(worker(), 3, wake, 42*time.Millisecond, at) }, "scaled from 0 to 3 after 42ms"},
		{"raised", raise, func(d *desk) { d.Raised(worker(), 3, 7, raise, at) }, "scaled from 3 to 7"},
		{"refused", hold, func(d *desk) { d.Refused(worker(), idle.Work, "queue redis/celery: 1 message waits", at) }, "refused: queue redis/celery: 1 message waits"},
		{"failed", wake, func(d *desk) { d.Failed(worker(), idle.Wake, errors.New("no right"), at) }, "failed: no right"},
		{"given up", wake, func(d *desk) { d.Failed(worker(), idle.Wake, fmt.Errorf("scale: %w", context.Canceled), at) }, ""},
		{"delayed", wake, func(d *desk) { d.Delayed(worker(), 50*time.Millisecond, at) }, "waits for its turn, 50ms"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			d := newDesk(t)
			d.Decided(worker(), idle.Observation{}, tt.made, at)
			tt.tell(d)
			if got := d.Entries("airflow", "worker")[0].Outcome; got != tt.want {
				t.Errorf("outcome %q, want %q", got, tt.want)
			}
			if got := d.All()[0].Latest.Outcome; got != tt.want {
				t.Errorf("outcome of the state %q, want %q", got, tt.want)
			}
		})
	}
}

// observed is a target of which something of everything is known, and something is not.
func observed(at time.Time) idle.Observation {
	depth := func(backlog, inFlight, scheduled int64) queue.Depth {
		return queue.Depth{
			Backlog: queue.Known(backlog, at.Add(-250*time.Millisecond)), InFlight: queue.Known(inFlight, at.Add(-time.Second)), Scheduled: queue.Known(scheduled, at),
		}
	}
	unknown := depth(2, 0, 0)
	unknown.InFlight = queue.Unknown(errors.New("no answer within 2s"))
	return idle.Observation{
		Replicas: 1, Pods: 2, Leads: true,
		Queues:    []idle.Queue{{Name: "redis/celery", Depth: depth(3, 1, 1)}, {Name: "redis/low", Depth: unknown}},
		Workers:   []idle.Worker{{Name: "worker-x", Reason: "executes 1 task"}},
		WantedErr: errors.New("queue redis/low is not known"),
	}
}

func TestPageShowsATarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		at := time.Now().UTC()
		d.Decided(worker(), observed(at), decision(idle.Hold, idle.Unknown, "not everything is known of queue redis/low"), at)
		time.Sleep(time.Minute)
		window := waits()
		window.Remaining = 4 * time.Minute
		d.Decided(worker(), idle.Observation{Replicas: 1, Pods: 1}, window, time.Now().UTC())
		time.Sleep(time.Minute)
		const want = `{
  "namespace": "airflow", "hpa": "worker", "apiVersion": "apps/v1", "kind": "Deployment", "name": "airflow-worker",
  "windowSeconds": 300, "paused": false, "since": "2000-01-01T00:01:00Z", "idleWindowRemainingSeconds": 180,
  "latest": {
    "at": "2000-01-01T00:01:00Z", "action": "hold", "cause": "window", "reason": "idle, but not for 5m0s yet",
    "replicas": 1, "wanted": 0, "pods": 1, "leads": false, "queues": [], "workers": []
  },
  "decisions": [
    {
      "at": "2000-01-01T00:00:00Z", "action": "hold", "cause": "unknown", "reason": "not everything is known of queue redis/low",
      "replicas": 1, "wanted": null, "pods": 2, "leads": true,
      "queues": [
        {"name": "redis/celery", "backlog": 3, "inFlight": 1, "scheduled": 1, "ageSeconds": 1},
        {"name": "redis/low", "backlog": 2, "inFlight": null, "scheduled": 0, "ageSeconds": 0.25, "unknown": "no answer within 2s"}
      ],
      "workers": [{"pod": "worker-x", "reason": "executes 1 task"}],
      "unknown": {"wanted": "queue redis/low is not known"}
    },
    {
      "at": "2000-01-01T00:01:00Z", "action": "hold", "cause": "window", "reason": "idle, but not for 5m0s yet",
      "replicas": 1, "wanted": 0, "pods": 1, "leads": false, "queues": [], "workers": []
    }
  ]
}`
		status, body := d.get(t, "/targets?namespace=airflow&hpa=worker")
		var got, wanted any
		if err := errors.Join(json.Unmarshal([]byte(body), &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, got); status != http.StatusOK || diff != "" {
			t.Errorf("answered %d (-want +got):\n%s", status, diff)
		}
		var read journal.Detail
		if err := json.Unmarshal([]byte(body), &read); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d.Entries("airflow", "worker"), read.Decisions); diff != "" {
			t.Errorf("what is read is not what was kept (-want +got):\n%s", diff)
		}
	})
}

// get asks the page.
func (d *desk) get(t *testing.T, address string) (status int, body string) {
	t.Helper()
	response := httptest.NewRecorder()
	d.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, address, nil))
	return response.Code, response.Body.String()
}

func TestPageListsTargets(t *testing.T) {
	d := newDesk(t)
	if status, body := d.get(t, "/targets"); status != http.StatusOK || strings.TrimSpace(body) != "{\n  \"targets\": []\n}" {
		t.Errorf("without targets: %d %s", status, body)
	}
	for _, other := range []string{"b/x", "a/y", "a/x"} {
		namespace, hpa, _ := strings.Cut(other, "/")
		d.Decided(target.Target{Namespace: namespace, HPA: hpa}, idle.Observation{}, waits(), start())
	}
	mistaken := worker()
	mistaken.Zero.Mistake = errors.New("minReplicas is 2")
	d.Mistaken(mistaken, start())
	_, body := d.get(t, "/targets")
	var list journal.List
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list.Targets {
		got = append(got, fmt.Sprintf("%s/%s %q %t", s.Namespace, s.HPA, s.Mistake, s.Latest != nil))
	}
	want := []string{`a/x "" true`, `a/y "" true`, `airflow/worker "minReplicas is 2" false`, `b/x "" true`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestPageRefuses(t *testing.T) {
	d := newDesk(t)
	for _, tt := range []struct {
		method, address string
		status          int
		want            string
	}{
		{http.MethodPost, "/targets", http.StatusMethodNotAllowed, "by GET"},
		{http.MethodGet, "/targets?namespace=airflow", http.StatusBadRequest, "name both namespace and hpa"},
		{http.MethodGet, "/targets?hpa=worker", http.StatusBadRequest, "name both namespace and hpa"},
		{http.MethodGet, "/targets?namespace=airflow&hpa=worker", http.StatusNotFound, "HorizontalPodAutoscaler airflow/worker asks for no scaling to zero"},
	} {
		t.Run(tt.method+" "+tt.address, func(t *testing.T) {
			response := httptest.NewRecorder()
			d.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), tt.method, tt.address, nil))
			if response.Code != tt.status || !strings.Contains(response.Body.String(), tt.want) {
				t.Errorf("answered %d %q, want %d and %q", response.Code, response.Body, tt.status, tt.want)
			}
		})
	}
}

func TestLongListsAreCut(t *testing.T) {
	d := newDesk(t)
	o := idle.Observation{}
	for i := range 30 {
		depth := queue.Depth{Backlog: queue.Known(0, start()), InFlight: queue.Known(0, start()), Scheduled: queue.Known(0, start())}
		switch i {
		case 20:
			depth.Backlog.N = 1
		case 25:
			depth.InFlight = queue.Unknown(errors.New("no answer"))
		}
		o.Queues = append(o.Queues, idle.Queue{Name: fmt.Sprint(i), Depth: depth})
		o.Workers = append(o.Workers, idle.Worker{Name: fmt.Sprint(i)})
	}
	d.Decided(worker(), o, waits(), start())
	e := d.Entries("airflow", "worker")[0]
	var queues, workers []string
	for _, q := range e.Queues {
		queues = append(queues, q.Name)
	}
	for _, w := range e.Workers {
		workers = append(workers, w.Pod)
	}
	if diff := cmp.Diff([]string{"20", "25", "0", "1", "2", "3", "4", "5", "6", "7"}, queues); diff != "" || e.MoreQueues != 20 {
		t.Errorf("%d more queues (-want +got):\n%s", e.MoreQueues, diff)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3", "4"}, workers); diff != "" || e.MoreWorkers != 25 {
		t.Errorf("%d more workers (-want +got):\n%s", e.MoreWorkers, diff)
	}
	if o.Queues[0].Name != "0" || o.Queues[20].Name != "20" {
		t.Error("the observation was changed")
	}
}

func TestMetricsTellWhatHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		const (
			asleep    = "celery_hpa_target_asleep_seconds"
			remaining = "celery_hpa_target_idle_window_remaining_seconds"
			mistaken  = "celery_hpa_target_mistaken"
		)
		check := func(rule, name string, want ...string) {
			t.Helper()
			got := d.series(t, name)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", rule, name, diff)
			}
		}
		window := waits()
		window.Remaining = 2 * time.Minute
		d.Decided(worker(), idle.Observation{Replicas: 1}, window, time.Now())
		time.Sleep(time.Minute)
		check("awake", asleep, "0")
		check("a window runs", remaining, "60")
		check("no mistake", mistaken, "0")
		time.Sleep(time.Hour)
		check("a window does not run out below zero", remaining, "0")
		d.Decided(worker(), idle.Observation{ReplicasErr: errors.New("no answer")}, decision(idle.Hold, idle.Unknown, "no answer"), time.Now())
		time.Sleep(time.Minute)
		check("a size that is not known is not zero", asleep, "0")

		d.Decided(worker(), idle.Observation{Replicas: 1}, decision(idle.Sleep, idle.Idle, "idle for 5m0s"), time.Now())
		d.Slept(worker(), 1, decision(idle.Sleep, idle.Idle, "idle for 5m0s"), time.Now())
		time.Sleep(10 * time.Second)
		check("asleep", asleep, "10")
		check("no window", remaining)
		d.Decided(worker(), idle.Observation{Replicas: 0}, decision(idle.Hold, idle.Asleep, "asleep"), time.Now())
		d.Decided(worker(), idle.Observation{ReplicasErr: errors.New("no answer")}, decision(idle.Hold, idle.Unknown, "no answer"), time.Now())
		time.Sleep(10 * time.Second)
		check("still asleep", asleep, "20")
		d.Woke(worker(), 1, decision(idle.Wake, idle.Arrived, "messages have arrived"), 30*time.Millisecond, time.Now())
		check("awake again", asleep, "0")

		wrong := worker()
		wrong.Zero.Mistake = errors.New("minReplicas is 2")
		d.Mistaken(wrong, time.Now())
		check("mistaken", mistaken, "1")
		d.Decided(worker(), idle.Observation{Replicas: 1}, waits(), time.Now())
		check("corrected", mistaken, "0")
		d.Forget(worker())
		for _, name := range []string{
			asleep, mistaken, "celery_hpa_target_cause", "celery_hpa_wakes_total", "celery_hpa_sleeps_total", "celery_hpa_raises_total",
			"celery_hpa_zero_refusals_total", "celery_hpa_zero_failures_total",
		} {
			check("forgotten", name)
		}
	})
}

// series are the values of one metric.
func (d *desk) series(t *testing.T, name string) []string {
	t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				values = append(values, fmt.Sprint(m.GetGauge().GetValue()+m.GetCounter().GetValue()))
			}
		}
	}
	return values
}

func TestMetricsTellTheLatestCause(t *testing.T) {
	d := newDesk(t)
	check := func(rule string, want ...string) {
		t.Helper()
		var lines []string
		for _, cause := range want {
			lines = append(lines, fmt.Sprintf("celery_hpa_target_cause{cause=%q,hpa=\"worker\",namespace=\"airflow\"} 1", cause))
		}
		if diff := cmp.Diff(lines, d.exposed(t, "celery_hpa_target_cause")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", rule, diff)
		}
	}
	check("nothing was decided")
	d.Decided(worker(), idle.Observation{Replicas: 1}, waits(), start())
	check("a window runs", "window")
	d.Decided(worker(), idle.Observation{Replicas: 1}, decision(idle.Hold, idle.Unknown, "no answer"), start())
	check("only the latest counts", "unknown")
	wrong := worker()
	wrong.Zero.Mistake = errors.New("minReplicas is 2")
	d.Mistaken(wrong, start())
	check("a mistaken target is not decided about")
}

// exposed are the lines of one metric as Prometheus reads them.
func (d *desk) exposed(t *testing.T, name string) []string {
	t.Helper()
	response := httptest.NewRecorder()
	promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}).
		ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var lines []string
	for line := range strings.Lines(response.Body.String()) {
		if strings.HasPrefix(line, name+"{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestMetricsCountWhatIsDone(t *testing.T) {
	d := newDesk(t)
	at, reason := start(), decision(idle.Wake, idle.Arrived, "messages have arrived")
	d.Decided(worker(), idle.Observation{}, waits(), at)
	d.Slept(worker(), 1, reason, at)
	d.Woke(worker(), 1, reason, 30*time.Millisecond, at)
	d.Woke(worker(), 1, reason, 2*time.Second, at)
	d.Raised(worker(), 1, 2, reason, at)
	d.Refused(worker(), idle.Work, "work", at)
	d.Failed(worker(), idle.Sleep, zeroscaler.ErrConflict, at)
	d.Failed(worker(), idle.Wake, context.Canceled, at)
	d.Delayed(worker(), time.Second, at)
	wrong := worker()
	wrong.Zero.Mistake = errors.New("minReplicas is 2")
	d.Mistaken(wrong, at) // which is no reason to forget what was done
	if err := testutil.GatherAndCompare(d.registry, strings.NewReader(`
# HELP celery_hpa_raises_total Targets scaled further up just after a wake, since more messages had arrived.
# TYPE celery_hpa_raises_total counter
celery_hpa_raises_total{hpa="worker",namespace="airflow"} 1
# HELP celery_hpa_sleeps_total Targets scaled to zero by this replica.
# TYPE celery_hpa_sleeps_total counter
celery_hpa_sleeps_total{hpa="worker",namespace="airflow"} 1
# HELP celery_hpa_wake_seconds How long a wake took, from when a message for the target was known of to the end of the write.
# TYPE celery_hpa_wake_seconds histogram
celery_hpa_wake_seconds_bucket{le="0.001"} 0
celery_hpa_wake_seconds_bucket{le="0.0025"} 0
celery_hpa_wake_seconds_bucket{le="0.005"} 0
celery_hpa_wake_seconds_bucket{le="0.01"} 0
celery_hpa_wake_seconds_bucket{le="0.025"} 0
celery_hpa_wake_seconds_bucket{le="0.05"} 1
celery_hpa_wake_seconds_bucket{le="0.1"} 1
celery_hpa_wake_seconds_bucket{le="0.25"} 1
celery_hpa_wake_seconds_bucket{le="0.5"} 1
celery_hpa_wake_seconds_bucket{le="1"} 1
celery_hpa_wake_seconds_bucket{le="2.5"} 2
celery_hpa_wake_seconds_bucket{le="5"} 2
celery_hpa_wake_seconds_bucket{le="10"} 2
celery_hpa_wake_seconds_bucket{le="30"} 2
celery_hpa_wake_seconds_bucket{le="60"} 2
celery_hpa_wake_seconds_bucket{le="+Inf"} 2
celery_hpa_wake_seconds_sum 2.03
celery_hpa_wake_seconds_count 2
# HELP celery_hpa_wakes_delayed_total Wakes that waited for their turn, since many were due at once.
# TYPE celery_hpa_wakes_delayed_total counter
celery_hpa_wakes_delayed_total 1
# HELP celery_hpa_wakes_total Targets scaled up from zero by this replica.
# TYPE celery_hpa_wakes_total counter
celery_hpa_wakes_total{hpa="worker",namespace="airflow"} 2
# HELP celery_hpa_zero_failures_total Writes of a scale that did not succeed, by action: sleep, wake or raise.
# TYPE celery_hpa_zero_failures_total counter
celery_hpa_zero_failures_total{action="raise",hpa="worker",namespace="airflow"} 0
celery_hpa_zero_failures_total{action="sleep",hpa="worker",namespace="airflow"} 1
celery_hpa_zero_failures_total{action="wake",hpa="worker",namespace="airflow"} 0
# HELP celery_hpa_zero_refusals_total Steps to zero that did not pass a look at the last moment, by what was found: work (messages), busy (workers), unknown (something was not known), or another cause.
# TYPE celery_hpa_zero_refusals_total counter
celery_hpa_zero_refusals_total{cause="busy",hpa="worker",namespace="airflow"} 0
celery_hpa_zero_refusals_total{cause="unknown",hpa="worker",namespace="airflow"} 0
celery_hpa_zero_refusals_total{cause="work",hpa="worker",namespace="airflow"} 1
`), "celery_hpa_raises_total", "celery_hpa_sleeps_total", "celery_hpa_wake_seconds", "celery_hpa_wakes_delayed_total", "celery_hpa_wakes_total", "celery_hpa_zero_failures_total", "celery_hpa_zero_refusals_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(d.registry); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestAnotherTargetBeginsAnew(t *testing.T) {
	for _, tt := range []struct {
		rule   string
		change func(*target.Target)
		anew   bool
	}{
		{"another window is the same target", func(t *target.Target) { t.Zero.Window = time.Minute }, false},
		{"another object is scaled", func(t *target.Target) { t.Name = "other" }, true},
		{"another HPA has the name", func(t *target.Target) { t.UID = "2" }, true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			d := newDesk(t)
			old, now := worker(), worker()
			tt.change(&now)
			d.Decided(old, idle.Observation{}, decision(idle.Hold, idle.Work, "before"), start())
			d.Decided(now, idle.Observation{}, decision(idle.Hold, idle.Work, "after"), start())
			if n := len(d.Entries("airflow", "worker")); (n == 1) != tt.anew {
				t.Errorf("%d entries, begun anew is to be %t", n, tt.anew)
			}
			d.Forget(old) // comes late
			if gone := d.Entries("airflow", "worker") == nil; gone == tt.anew {
				t.Errorf("forgotten: %t, although the other took its place: %t", gone, tt.anew)
			}
		})
	}
}

func TestNobodyWaitsForEvents(t *testing.T) {
	d := newDesk(t)
	for range 3000 { // of which Run writes none
		d.Slept(worker(), 1, decision(idle.Sleep, idle.Idle, "idle for 5m0s"), start())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ended); err != nil {
		t.Error(err)
	}
	if !strings.Contains(d.log.String(), `msg="Events were lost, since too many waited to be written" events=2000`) {
		t.Error("that events were lost is not said")
	}
}

func TestMistakesAreLoggedOnce(t *testing.T) {
	d := newDesk(t)
	for _, text := range []string{"a", "a", "b", "b", "a"} {
		wrong := worker()
		wrong.Zero.Mistake = errors.New(text)
		d.Mistaken(wrong, start())
	}
	d.Mistaken(worker(), start()) // is none
	const want = `level=WARN msg="Does not go to zero, although its HPA asks for it" hpa=airflow/worker target="Deployment airflow/airflow-worker" error=`
	if diff := cmp.Diff(want+"a\n"+want+"b\n"+want+"a\n", d.log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// BenchmarkFullJournal measures what a journal takes that is full to the brim: each of
// some targets works for twenty queues, of which one is unknown, and has as many
// workers that are busy.
func BenchmarkFullJournal(b *testing.B) {
	for _, targets := range []int{200, 1000} {
		b.Run(fmt.Sprintf("targets=%d", targets), func(b *testing.B) {
			for b.Loop() {
				before, quiet := heap(), newQuiet(b)
				fill(quiet, targets)
				b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
				_ = quiet.Entries("airflow", "worker-1") // is alive until here
			}
		})
	}
}

// BenchmarkDecided measures a decision that is the same as the one before.
func BenchmarkDecided(b *testing.B) {
	quiet, same, o := newQuiet(b), waits(), crowded()
	for b.Loop() {
		quiet.Decided(worker(), o, same, start())
	}
}
