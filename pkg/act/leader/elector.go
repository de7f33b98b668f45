package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"
)

// LeaseName is the name of the lease.
const LeaseName = "celery-hpa"

// Times are those of an election. Each must be above the next, and Renew above 1.2
// times Retry.
type Times struct {
	// Lease is for how long a lease is respected that nobody renews, in whole seconds.
	Lease time.Duration
	// Renew is for how long after a renewal its holder leads.
	Renew time.Duration
	// Retry is the time from one renewal, or attempt to get the lease, to the next.
	Retry time.Duration
}

// DefaultTimes are those of the package's documentation: a lease is handed over within
// 15 s after the end of its holder.
func DefaultTimes() Times {
	return Times{Lease: 10 * time.Second, Renew: 7 * time.Second, Retry: 2 * time.Second}
}

// Elector takes part in the election. Make it with New. It is safe for concurrent use.
type Elector struct {
	lease *lease
	times Times
}

// New makes an elector that has not been elected. Identity must differ between
// replicas, like the name of the pod. It needs the rights to get, create and update
// the Lease celery-hpa of that namespace. It fails if its metric cannot be registered.
func New(leases client.LeasesGetter, namespace, identity string, log *slog.Logger, registry prometheus.Registerer) (*Elector, error) {
	return NewWithTimes(leases, namespace, identity, log, registry, DefaultTimes())
}

// NewWithTimes is New with other times.
func NewWithTimes(leases client.LeasesGetter, namespace, identity string, log *slog.Logger, registry prometheus.Registerer, times Times) (*Elector, error) {
	if namespace == "" || identity == "" {
		return nil, errors.New("elect a leader: the namespace of celery-hpa and the name of its pod must be known")
	}
	if times.Lease%time.Second != 0 {
		return nil, fmt.Errorf("elect a leader: a Lease lasts for whole seconds, not for %s", times.Lease)
	}
	e := &Elector{lease: newLease(leases, namespace, identity, log, times.Renew), times: times}
	if _, err := e.candidacy(); err != nil {
		return nil, fmt.Errorf("elect a leader: %w", err)
	}
	leads := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "celery_hpa_leader",
		Help: "Whether this replica of celery-hpa leads (1), and so puts targets to sleep, or not (0).",
	}, func() float64 {
		if e.Leads() {
			return 1
		}
		return 0
	})
	if err := registry.Register(leads); err != nil {
		return nil, fmt.Errorf("register the metric of the leader: %w", err)
	}
	return e, nil
}

// Notify has led called whenever this replica begins to lead, when Leads is true already.
// It must not block. Notify is to be called before Run.
func (e *Elector) Notify(led func()) { e.lease.led = led }

// Leads reports whether this replica leads. It does no I/O, and is true only while
// nobody else can lead: it becomes false by itself when the lease was not renewed in
// time, even if the whole process stood still.
func (e *Elector) Leads() bool { return e.lease.isOurs() }

// Run takes part until ctx is done, then gives the lease back if it holds it, and
// returns nil. It blocks. A lease that was lost is sought again; missing rights are
// logged, and tried again.
func (e *Elector) Run(ctx context.Context) error {
	quiet := klog.NewContext(ctx, klog.Logger{}) // what matters is logged by the lease
	for ctx.Err() == nil {
		candidacy, err := e.candidacy()
		if err != nil {
			return fmt.Errorf("elect a leader: %w", err)
		}
		candidacy.Run(quiet)
	}
	return nil
}

// candidacy is good until the lease is lost.
func (e *Elector) candidacy() (*leaderelection.LeaderElector, error) {
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            e.lease,
		LeaseDuration:   e.times.Lease,
		RenewDeadline:   e.times.Renew,
		RetryPeriod:     e.times.Retry,
		ReleaseOnCancel: true,
		Name:            LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {}, // asked for by Leads
			OnStoppedLeading: e.lease.lost,
		},
	})
}
