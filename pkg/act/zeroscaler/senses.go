package zeroscaler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
)

// lookTimeout bounds a look afresh. The API server waits for a webhook's answer a
// little longer than that.
const lookTimeout = 1800 * time.Millisecond

// Metrics is the external metrics API, which is what the HPA sees, from memory; see
// externalmetrics.Provider.
type Metrics interface {
	Queues(namespace string, selector labels.Selector, now time.Time) ([]externalmetrics.Queue, error)
	Names(namespace string, selector labels.Selector) (map[queue.BrokerRef][]string, error)
	GetExternalMetric(ctx context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error)
}

// Fleets gives fleets of workers as they are now, from memory; see fleet.Watcher.
type Fleets interface {
	Fleet(ref fleet.Ref) (fleet.Fleet, error)
	Selected(namespace string, selector labels.Selector) (fleet.Fleet, error)
}

// Fresh makes what is known fresh. Both block until ctx is done at the latest, and
// return nil if it is fresh by then.
type Fresh interface {
	// Sample samples a broker; see sampler.Group.Fresh.
	Sample(ctx context.Context, ref queue.BrokerRef) error
	// Ask asks the workers of a fleet what they execute.
	Ask(ctx context.Context, f fleet.Fleet) error
}

// Memory implements Senses over what is remembered. It is safe for concurrent use.
type Memory struct {
	Metrics Metrics
	Fleets  Fleets
	Fresh   Fresh
	// Every is the time from one sample of a broker to the next.
	Every func(ref queue.BrokerRef) time.Duration
	Now   func() time.Time
}

var _ Senses = (*Memory)(nil)

// Observe implements Senses.
func (m *Memory) Observe(t target.Target, seen Scale, now time.Time) idle.Observation {
	var o idle.Observation
	readings := m.read(t, now)
	queues, err := queuesOf(readings)
	o.QueuesErr = err
	o.Queues = make([]idle.Queue, 0, len(queues))
	var last queue.BrokerRef
	for _, q := range queues {
		if q.Broker != last {
			o.Interval, last = max(o.Interval, m.Every(q.Broker)), q.Broker
		}
		o.Queues = append(o.Queues, idle.Queue{Name: q.Broker.Name + "/" + q.Label, Depth: q.Depth})
	}
	o.Wanted, o.WantedErr = wanted(t, seen, readings)
	f, err := m.fleet(t, seen)
	if err != nil {
		o.WorkersErr = err
		return o
	}
	o.Pods = len(f.Members)
	o.Workers, o.WorkersErr = notIdle(f)
	return o
}

// reading is what a signal says now: the queues that its selector matches, or the sum of a
// metric of workers.
type reading struct {
	signal target.Signal
	queues []externalmetrics.Queue
	value  target.Value
}

// read reads each signal once.
func (m *Memory) read(t target.Target, now time.Time) []reading {
	readings := make([]reading, 0, len(t.Signals))
	for _, s := range t.Signals {
		r := reading{signal: s}
		if metric, ok := queue.MetricNamed(s.Metric); ok {
			r.queues, r.value.Err = m.Metrics.Queues(t.Namespace, s.Selector, now)
			if r.value.Err == nil {
				r.value = sum(metric, r.queues)
			}
		} else {
			r.value = m.ofWorkers(t, s)
		}
		readings = append(readings, r)
	}
	return readings
}

// sum is the value of a metric of queues, as the HPA sums it: unknown where one of them
// is.
func sum(metric queue.Metric, queues []externalmetrics.Queue) target.Value {
	var v target.Value
	for _, q := range queues {
		c := metric.Of(q.Depth)
		if c.Err != nil {
			return target.Value{Err: c.Err}
		}
		if !metric.Milli {
			c.N *= 1000
		}
		v.Milli += c.N
	}
	return v
}

// ofWorkers is the value of a metric of workers, as the HPA sums it.
func (m *Memory) ofWorkers(t target.Target, s target.Signal) target.Value {
	list, err := m.Metrics.GetExternalMetric(context.Background(), t.Namespace, s.Selector, provider.ExternalMetricInfo{Metric: s.Metric})
	if err != nil {
		return target.Value{Err: err}
	}
	var v target.Value
	for _, item := range list.Items {
		v.Milli += item.Value.MilliValue()
	}
	return v
}

// queuesOf returns each queue of the signals once, those that are known also with an
// error, which says which signal is not.
func queuesOf(readings []reading) ([]externalmetrics.Queue, error) {
	var all []externalmetrics.Queue
	var errs []error
	signals := 0
	for _, r := range readings {
		if !queue.IsMetric(r.signal.Metric) {
			continue
		}
		if r.value.Err != nil && r.queues == nil {
			errs = append(errs, fmt.Errorf("metric %s: %w", r.signal.Metric, r.value.Err))
		}
		if signals++; signals == 1 {
			all = r.queues
			continue
		}
		all = append(slices.Clip(all), r.queues...)
	}
	if signals > 1 { // which may name the same queue
		slices.SortFunc(all, func(a, b externalmetrics.Queue) int { return compareQueues(a, b) })
		all = slices.CompactFunc(all, func(a, b externalmetrics.Queue) bool { return compareQueues(a, b) == 0 })
	}
	return all, errors.Join(errs...)
}

// wanted is the size that the HPA would compute now, beginning at zero.
func wanted(t target.Target, seen Scale, readings []reading) (int32, error) {
	values := make([]target.Value, 0, len(readings))
	for _, r := range readings {
		values = append(values, r.value)
	}
	return t.Wanted(seen.Replicas, 0, values)
}

// fleet is the workers of a target: by name where they are a Deployment or StatefulSet,
// else all pods that its scale selects.
func (m *Memory) fleet(t target.Target, seen Scale) (fleet.Fleet, error) {
	if ref, ok := drain.FleetOf(t); ok {
		return m.Fleets.Fleet(ref)
	}
	selector, err := labels.Parse(seen.Selector)
	if err != nil {
		return fleet.Fleet{}, fmt.Errorf("the selector %q of the scale of %s: %w", seen.Selector, t, err)
	}
	return m.Fleets.Selected(t.Namespace, selector)
}

// notIdle lists the workers that may execute something: also one that was not heard yet
// in a pod that is not ready yet, since a worker may take tasks before that. Where pods are there and no
// worker of them was ever heard, nothing is known of any.
func notIdle(f fleet.Fleet) ([]idle.Worker, error) {
	var workers []idle.Worker
	starting := 0
	for _, member := range f.Members {
		if member.State == fleet.Starting {
			starting++
		}
		if member.State != fleet.Idle {
			workers = append(workers, idle.Worker{Name: member.Pod, Reason: member.Reason})
		}
	}
	if !f.Heard && len(f.Members) > starting {
		return workers, errors.New("none of them was ever heard: do they send heartbeats?")
	}
	return workers, nil
}

// Look implements Senses. The brokers are sampled first, and then the workers asked:
// a message that was there before the sample either waits or is held, as the sample
// shows, or executes, as its worker says. The other way round, one that is acknowledged
// when its task begins could pass in between.
func (m *Memory) Look(ctx context.Context, t target.Target, seen Scale) idle.Observation {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	began := m.Now()
	unread := m.sample(ctx, t)
	asked, unasked := m.ask(ctx, t, seen)
	o := m.Observe(t, seen, m.Now()) //nolint:contextcheck // it reads memory alone
	o.QueuesErr = errors.Join(o.QueuesErr, unread, older(o.Queues, began))
	o.WorkersErr = errors.Join(o.WorkersErr, unasked, m.unseen(t, seen, asked))
	return o
}

// unseen says that a worker may execute something and was not asked, or what it said is
// forgotten: a pod of the target is not known yet, or has gone since it was asked.
func (m *Memory) unseen(t target.Target, seen Scale, asked fleet.Fleet) error {
	if known := len(asked.Members); known < int(seen.Pods) {
		return fmt.Errorf("of its %d pods (status.replicas) %d are known", seen.Pods, known)
	}
	now, err := m.fleet(t, seen)
	if err != nil {
		return err
	}
	for _, was := range asked.Members {
		if !slices.ContainsFunc(now.Members, func(is fleet.Member) bool { return is.Pod == was.Pod }) {
			return fmt.Errorf("pod %s has ended since it was asked", was.Pod)
		}
	}
	return nil
}

// older says which queue was not read since then, if one was not.
func older(queues []idle.Queue, then time.Time) error {
	for _, q := range queues {
		if q.Depth.Backlog.Err == nil && q.Depth.Backlog.At.Before(then) {
			return fmt.Errorf("queue %s could not be read afresh", q.Name)
		}
	}
	return nil
}

// sample has each broker of a target sampled, one after the other.
func (m *Memory) sample(ctx context.Context, t target.Target) error {
	var errs []error
	for _, ref := range slices.SortedFunc(maps.Keys(m.Queues(t)), compareRefs) {
		if err := m.Fresh.Sample(ctx, ref); err != nil {
			errs = append(errs, fmt.Errorf("broker %s could not be read afresh: %w", ref, err))
		}
	}
	return errors.Join(errs...)
}

// ask asks the workers of a target, and returns who they are.
func (m *Memory) ask(ctx context.Context, t target.Target, seen Scale) (fleet.Fleet, error) {
	f, err := m.fleet(t, seen)
	if err != nil || len(f.Members) == 0 {
		return f, err
	}
	return f, m.Fresh.Ask(ctx, f)
}

// Queues implements Senses.
func (m *Memory) Queues(t target.Target) map[queue.BrokerRef][]string {
	names := map[queue.BrokerRef][]string{}
	for _, s := range t.Signals {
		if !queue.IsMetric(s.Metric) {
			continue
		}
		found, _ := m.Metrics.Names(t.Namespace, s.Selector) // what is not known yet is found later
		for ref, more := range found {
			names[ref] = append(names[ref], more...)
		}
	}
	for ref := range names {
		slices.Sort(names[ref])
		names[ref] = slices.Compact(names[ref])
	}
	return names
}

func compareQueues(a, b externalmetrics.Queue) int {
	if c := compareRefs(a.Broker, b.Broker); c != 0 {
		return c
	}
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}
