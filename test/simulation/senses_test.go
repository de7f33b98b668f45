package simulation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
)

// lookTime bounds a look afresh (pkg/act/zeroscaler).
const lookTime = 1800 * time.Millisecond

// look is what one look afresh has shown, as the judge needs to know it.
type look struct {
	replica *replica
	began   moment
	version string  // of the scale that was seen before
	counted []*task // messages that the counts have shown, or should have
	asked   []*task // that the workers executed when they answered
}

// senses are the program's, over the memory of a replica, for one coroutine.
type senses struct {
	*zeroscaler.Memory
	fresh *fresh
	last  *look
}

func newSenses(r *replica, p *proc) *senses {
	f := &fresh{r: r, p: p}
	return &senses{fresh: f, Memory: &zeroscaler.Memory{
		Metrics: metrics{r}, Fleets: fleets{r}, Fresh: f, Now: r.w.clock,
		Every: func(queue.BrokerRef) time.Duration { return sampleInterval },
	}}
}

// Look implements zeroscaler.Senses. The time that it may take is the model's.
func (s *senses) Look(ctx context.Context, t target.Target, seen zeroscaler.Scale) idle.Observation {
	r := s.fresh.r
	s.fresh.until = r.w.now + lookTime
	s.last = &look{replica: r, began: r.w.now, version: seen.ResourceVersion}
	s.fresh.look = s.last
	r.w.mayKill(r)
	o := s.Memory.Look(ctx, t, seen)
	s.last.counted = r.memory.counted
	if seen.Replicas > 0 && !s.fresh.p.killed && s == r.senses {
		o.Replicas = seen.Replicas
		r.w.judge.looked(r, o)
	}
	return o
}

// memory is what a replica knows of broker and workers.
type memory struct {
	counts    *snapshot.Store
	counted   []*task // by the sample
	workers   map[string]*heard
	pods      []podView // sorted by name
	everHeard bool
	// fleet is what these say together, until fleetTill at the latest; nil if it is to be
	// said anew.
	fleet     *fleet.Fleet
	fleetTill moment
}

// heard is what was heard of a worker.
type heard struct {
	workers.Worker
	processed int64
	isCounted bool // whether processed is known
}

// beat is a heartbeat.
type beat struct {
	host              string
	active, processed int
	offline           bool
}

func newMemory(maxAge time.Duration) memory {
	m := memory{counts: snapshot.New(), workers: map[string]*heard{}}
	m.counts.Declare(snapshot.Declaration{Ref: brokerRef(), MaxAge: maxAge, Queues: map[string]string{"default": ""}})
	return m
}

// broker is what was counted at the broker.
func (m *memory) broker() *snapshot.Broker {
	b, _ := m.counts.Broker(brokerRef())
	return b
}

// hear takes in a heartbeat, as package workers does.
func (r *replica) hear(b beat) {
	if !r.alive || r.isCut() {
		return
	}
	now := r.w.clock()
	r.memory.fleet = nil
	h := r.memory.workers[b.host]
	if h == nil {
		h = &heard{Worker: workers.Worker{Node: "celery@" + b.host, Host: b.host, Frequency: 2 * time.Second, Since: now}}
		r.memory.workers[b.host] = h
	}
	if b.offline {
		h.OfflineAt = now
	}
	isBehind := h.Told > 0 && h.Active.N == 0 && b.active == 0 && int64(b.processed) == h.processed && now.Sub(h.ToldAt) < h.Frequency
	if !isBehind { // else it was sent before the tasks began of which the worker has told
		h.Told = 0
	}
	h.Moved = h.isCounted && int64(b.processed) != h.processed
	h.Active, h.processed, h.isCounted = celery.Number{N: int64(b.active), Known: true}, int64(b.processed), true
	h.HeardAt = now
}

// depthNow is what is known of the queue, with each count unknown that is too old.
func (r *replica) depthNow() (queue.Depth, error) {
	return r.memory.broker().Lookup("default", r.w.clock())
}

// isDeaf tells whether a notice was lost, and no sample that began later has been read: the
// first one may fail.
func (r *replica) isDeaf() bool {
	since := r.w.epoch.Add(r.deafTill - deafTime)
	return r.w.now < r.deafTill || r.memory.broker().SampledAt().Before(since)
}

// arrives takes in a backlog that was read in between.
func (r *replica) arrives(c queue.Count) {
	r.memory.counts.PutBacklogs(brokerRef(), map[string]queue.Count{"default": c})
}

// takes takes in a sample that was begun then. It tells nothing of times, about which
// nobody asks.
func (r *replica) takes(d queue.Depth, began moment, counted []*task) {
	at := r.w.epoch.Add(began)
	d.Oldest, d.Wait, d.Work = queue.Known(0, at), queue.Known(0, at), queue.Known(0, at)
	r.memory.counts.Put(brokerRef(), &queue.Sample{At: at, Queues: map[string]queue.Depth{"default": d}})
	r.memory.counted = counted
}

// told is how many tasks workers have told to execute that the broker has forgotten.
func (r *replica) told() int64 {
	var n int64
	for _, h := range r.memory.workers {
		if !h.Silent(r.w.clock()) {
			n += max(h.Active.N, 0)
		}
	}
	return n
}

// metrics implements zeroscaler.Metrics for the one queue.
type metrics struct{ r *replica }

func brokerRef() queue.BrokerRef { return queue.BrokerRef{Namespace: "airflow", Name: "broker"} }

func fleetRef() fleet.Ref {
	return fleet.Ref{Namespace: "airflow", Kind: fleet.Deployment, Name: "worker"}
}

// Queues implements zeroscaler.Metrics.
func (m metrics) Queues(string, labels.Selector, time.Time) ([]externalmetrics.Queue, error) {
	d, err := m.r.depthNow()
	if err != nil {
		u := queue.Unknown(err)
		d = queue.Depth{Backlog: u, InFlight: u, Scheduled: u}
	}
	return []externalmetrics.Queue{{Broker: brokerRef(), Name: "default", Label: "default", Depth: d}}, nil
}

// Names implements zeroscaler.Metrics.
func (m metrics) Names(string, labels.Selector) (map[queue.BrokerRef][]string, error) {
	return map[queue.BrokerRef][]string{brokerRef(): {"default"}}, nil
}

// GetExternalMetric implements zeroscaler.Metrics.
func (m metrics) GetExternalMetric(_ context.Context, _ string, _ labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	c := m.r.value(info.Metric)
	if c.Err != nil {
		return nil, c.Err
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{{Value: *resource.NewQuantity(c.N, resource.DecimalSI)}}}, nil
}

const (
	tasksMetric = "celery_queue_tasks"
	busyMetric  = "celery_busy_workers"
)

// value is a metric as the replica knows it.
func (r *replica) value(metric string) queue.Count {
	if metric == busyMetric {
		f, err := fleets{r}.Fleet(fleetRef())
		if err != nil {
			return queue.Unknown(err)
		}
		return fleet.Metrics()[0].Of(f, r.w.clock())
	}
	d, err := r.depthNow()
	if err != nil {
		return queue.Unknown(err)
	}
	return d.Tasks()
}

// metric is one of the HPA's, as it reads it from a replica.
type metric struct {
	value, target int64
	err           error
}

func (r *replica) metrics() []metric {
	tasks := r.value(tasksMetric)
	found := []metric{{tasks.N, int64(r.w.plan.concurrency), tasks.Err}}
	if r.w.plan.busyMetric {
		busy := r.value(busyMetric)
		found = append(found, metric{busy.N, 1, busy.Err})
	}
	return found
}

// fleets implements zeroscaler.Fleets for the one fleet.
type fleets struct{ r *replica }

// Fleet implements zeroscaler.Fleets. What was said of it last holds until something is
// heard, or has not been for too long.
func (f fleets) Fleet(fleet.Ref) (fleet.Fleet, error) {
	r := f.r
	if !r.informer.isSynced {
		return fleet.Fleet{}, errors.New("the pods of the namespace are not known yet")
	}
	if m := &r.memory; m.fleet == nil || r.w.now > m.fleetTill {
		f, until := r.fleetNow()
		m.fleet, m.fleetTill = &f, until
	}
	return *r.memory.fleet, nil
}

// fleetNow is the fleet as of now, and until when that holds if nothing is heard.
func (r *replica) fleetNow() (fleet.Fleet, moment) {
	found := fleet.Fleet{Ref: fleetRef(), Members: make([]fleet.Member, 0, len(r.memory.pods))}
	now, until := r.w.clock(), r.w.now+time.Hour
	for _, p := range r.memory.pods {
		h := r.memory.workers[p.name]
		v := p.unheard()
		if h != nil {
			v = fleet.Judge(h.Worker, now)
			r.memory.everHeard = true
			if silentAt := h.HeardAt.Add(3 * h.Frequency).Sub(r.w.epoch); silentAt >= r.w.now {
				until = min(until, silentAt)
			}
		}
		if p.terminating {
			v.State = fleet.Draining
		}
		found.Members = append(found.Members, fleet.Member{
			Pod: p.name, Host: p.name, Ordinal: -1, Ready: p.ready, Terminating: p.terminating,
			State: v.State, Reason: v.Reason, Active: v.Active, Slots: v.Slots,
		})
	}
	found.Heard = r.memory.everHeard
	return found, until
}

// Selected implements zeroscaler.Fleets.
func (f fleets) Selected(string, labels.Selector) (fleet.Fleet, error) { return f.Fleet(fleetRef()) }

// unheard is what is known of a pod whose worker was never heard.
func (p podView) unheard() fleet.Verdict {
	if p.ready {
		err := errors.New("the pod is ready, but its worker was never heard")
		return fleet.Verdict{State: fleet.Unknown, Reason: err.Error(), Active: queue.Unknown(err)}
	}
	return fleet.Verdict{State: fleet.Starting, Reason: "the pod is not ready yet"}
}

// podView is a pod as an informer shows it.
type podView struct {
	name                     string
	ready, terminating, gone bool
}

// informer shows what the API server has, some time later.
type informer struct {
	r         *replica
	life      int
	isSynced  bool
	seen      size
	says      spec
	made      target.Target
	delivered [3]moment // of sizes, pods and specs, so that none overtakes another
}

// startInformer begins with a list, and misses nothing that happens meanwhile.
func startInformer(r *replica) *informer {
	i := &informer{r: r, life: r.life, says: r.w.plan.spec}
	i.made = targetOf(r.w.plan, i.says)
	sync := r.w.between(20*time.Millisecond, time.Second)
	var list func()
	list = func() {
		if r.life != i.life {
			return
		}
		if r.isOffline() {
			r.w.after(r.apiBy-r.w.now+10*time.Millisecond, list)
			return
		}
		i.isSynced, i.seen = true, r.w.cluster.size
		i.learn(r.w.plan.spec)
		r.memory.pods, r.memory.fleet = nil, nil
		for _, p := range r.w.cluster.pods {
			i.show(podView{name: p.name, ready: p.ready, terminating: p.terminating})
		}
		r.poke()
	}
	r.w.after(sync, list)
	return i
}

// deliver hands something over later, in order.
func (i *informer) deliver(line int, do func()) {
	w := i.r.w
	lag := w.between(500*time.Microsecond, 5*time.Millisecond)
	if w.chance(w.faults().staleCache) {
		w.marks[staleCaches]++
		lag = w.mostly(5*time.Millisecond, 500*time.Millisecond, 3*time.Second)
	}
	if i.r.isOffline() {
		lag += i.r.apiBy - w.now
	}
	i.delivered[line] = max(i.delivered[line], w.now+lag)
	w.after(i.delivered[line]-w.now, func() {
		if i.r.life == i.life && i.isSynced {
			do()
		}
	})
}

func (i *informer) size(now size) {
	i.deliver(0, func() {
		if now.version > i.seen.version {
			was := i.seen
			i.seen = now
			if was.replicas != now.replicas || was.pods != now.pods {
				i.r.poke()
			}
		}
	})
}

func (i *informer) pod(p podView) { i.deliver(1, func() { i.show(p) }) }

func (i *informer) spec(s spec) {
	i.deliver(2, func() {
		i.learn(s)
		i.r.poke()
	})
}

func (i *informer) learn(s spec) {
	i.says = s
	i.made = targetOf(i.r.w.plan, s)
}

// show takes in a pod.
func (i *informer) show(p podView) {
	m := &i.r.memory
	m.fleet = nil
	at, found := slices.BinarySearchFunc(m.pods, p, func(a, b podView) int { return strings.Compare(a.name, b.name) })
	switch {
	case found && p.gone:
		m.pods = slices.Delete(m.pods, at, at+1)
	case found:
		m.pods[at] = p
	case !p.gone:
		m.pods = slices.Insert(m.pods, at, p)
	}
}

func (i *informer) target() target.Target { return i.made }

// targetOf reads an HPA as the program does.
func targetOf(p plan, s spec) target.Target {
	external := func(name string, average int64) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"queue": "default"}}},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(average, resource.DecimalSI)},
		}}
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	h.Namespace, h.Name = "airflow", "worker"
	h.Annotations = map[string]string{"celery-hpa.io/scale-to-zero": "true", "celery-hpa.io/idle-window": s.window.String()}
	if s.paused {
		h.Annotations["celery-hpa.io/paused"] = "true"
	}
	h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "worker"}
	h.Spec.MinReplicas, h.Spec.MaxReplicas = &s.least, s.most
	h.Spec.Metrics = []autoscalingv2.MetricSpec{external(tasksMetric, int64(p.concurrency))}
	if p.busyMetric {
		h.Spec.Metrics = append(h.Spec.Metrics, external(busyMetric, 1))
	}
	t, err := target.Of(h)
	if err != nil || t.Zero.Mistake != nil {
		panic("the HPA of the simulation is wrong: " + errors.Join(err, t.Zero.Mistake).Error())
	}
	return t
}
