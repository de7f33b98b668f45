package app

import (
	"context"
	"slices"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
	"github.com/celery-hpa/celery-hpa/pkg/serve/externalmetrics"
	"github.com/celery-hpa/celery-hpa/pkg/serve/promexport"
)

// workforce is all that hears workers and joins them with their pods.
type workforce struct {
	heard    *workers.Store
	group    *workers.Group
	exporter *promexport.Fleets
	// cluster is nil without one.
	cluster *cluster
}

func newWorkforce(o Options) (*workforce, error) {
	w := &workforce{heard: workers.NewStore()}
	pods := func(string, string) (has, known bool) { return false, true }
	if o.Local {
		w.exporter = promexport.NewFleets(w.heard, nil, time.Now)
	} else {
		var err error
		if w.cluster, err = newCluster(o, w.heard); err != nil {
			return nil, err
		}
		w.exporter = promexport.NewFleets(w.heard, w.cluster.fleets, time.Now)
		pods = w.cluster.fleets.HasPod
	}
	w.group = workers.NewGroup(w.heard, w.exporter, pods, o.Log)
	return w, nil
}

// fleetReader is nil without a cluster.
func (w *workforce) fleetReader() externalmetrics.FleetReader {
	if w.cluster == nil {
		return nil
	}
	return w.cluster.fleets
}

// apply hears the workers of these brokers, and watches the pods of their namespaces.
func (w *workforce) apply(ctx context.Context, found []brokers.Broker, known bool) {
	var specs []workers.Spec
	var namespaces []string
	for _, b := range found {
		namespaces = append(namespaces, b.Namespace)
		if *b.Spec.Workers.Heartbeats {
			specs = append(specs, workersOf(b, w.declared(b)))
		}
	}
	if w.cluster != nil {
		slices.Sort(namespaces)
		w.cluster.watch(ctx, slices.Compact(namespaces), known)
	}
	w.group.Apply(ctx, specs)
}

// declared finds what a broker's document says of the workers on a host: by the fleet
// of the pod that has it.
func (w *workforce) declared(b brokers.Broker) func(host string) workers.Declaration {
	if w.cluster == nil || len(b.Spec.Workers.Fleets) == 0 {
		return nil
	}
	byFleet := map[fleet.Ref]workers.Declaration{}
	for _, f := range b.Spec.Workers.Fleets {
		ref := fleet.Ref{Namespace: b.Namespace, Kind: fleet.Deployment, Name: f.Deployment}
		if f.StatefulSet != "" {
			ref.Kind, ref.Name = fleet.StatefulSet, f.StatefulSet
		}
		byFleet[ref] = workers.Declaration{Queues: f.Queues, AcksLate: f.AcksLate}
	}
	return func(host string) workers.Declaration {
		ref, _ := w.cluster.fleets.OwnerOf(b.Namespace, host)
		return byFleet[ref]
	}
}

// wait blocks until nothing runs any more.
func (w *workforce) wait() {
	w.group.Wait()
	if w.cluster != nil {
		w.cluster.fleets.Wait()
	}
}

// ask asks the workers in the pods of a fleet what they execute.
func (w *workforce) ask(ctx context.Context, f fleet.Fleet) error {
	hosts := make([]string, 0, len(f.Members))
	for _, m := range f.Members {
		hosts = append(hosts, m.Host)
	}
	return w.group.Fresh(ctx, f.Namespace, hosts)
}
