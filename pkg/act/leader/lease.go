package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// lease is the lock of client-go, with a note of when it was ours for certain. It logs
// what changes.
type lease struct {
	resourcelock.LeaseLock

	log *slog.Logger
	// renew is for how long a renewal is good; half of it bounds each request, so
	// that one without an answer leaves time for another.
	renew time.Duration
	// led is called whenever the lease becomes ours, see Elector.Notify; nil for nobody.
	led func()

	mu       sync.Mutex
	renewed  time.Time         // when the last good renewal was begun, zero if it is not ours
	holder   string            // who was logged to lead, empty if nobody was
	reported map[string]string // the failures that were logged, by verb, until that goes well
}

var _ resourcelock.Interface = (*lease)(nil)

func newLease(leases client.LeasesGetter, namespace, identity string, log *slog.Logger, renew time.Duration) *lease {
	return &lease{
		LeaseLock: resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: LeaseName},
			Client:     leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		log:   log.With("lease", namespace+"/"+LeaseName, "identity", identity),
		renew: renew, reported: map[string]string{},
	}
}

// isOurs is true for as long after a renewal as it is good. The monotonic clock does
// not go on while the machine is suspended, the wall clock does: the longer time counts.
func (l *lease) isOurs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isOursAt(time.Now())
}

func (l *lease) isOursAt(now time.Time) bool {
	since := max(now.Sub(l.renewed), now.Round(0).Sub(l.renewed.Round(0)))
	return !l.renewed.IsZero() && since < l.renew
}

// Get implements resourcelock.Interface.
func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	bounded, cancel := context.WithTimeout(ctx, l.renew/2)
	defer cancel()
	record, raw, err := l.LeaseLock.Get(bounded)
	if err == nil && record.HolderIdentity != l.Identity() {
		l.note(record.HolderIdentity, time.Time{})
	}
	if ctx.Err() == nil {
		l.report("get", err)
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *lease) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, "create", record, l.LeaseLock.Create)
}

// Update implements resourcelock.Interface.
func (l *lease) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, "update", record, l.LeaseLock.Update)
}

// write makes one request. The lease is ours from when it was sent: nobody can have
// seen the renewal earlier than that. Whoever gives it back does not lead from before
// that on, whether or not it succeeds.
func (l *lease) write(ctx context.Context, verb string, record resourcelock.LeaderElectionRecord,
	request func(context.Context, resourcelock.LeaderElectionRecord) error,
) error {
	bounded, cancel := context.WithTimeout(ctx, l.renew/2)
	defer cancel()
	began := time.Now()
	if record.HolderIdentity != l.Identity() {
		l.note("", time.Time{})
	}
	err := request(bounded, record)
	if err == nil && record.HolderIdentity == l.Identity() {
		l.note(l.Identity(), began)
	}
	if ctx.Err() == nil {
		l.report(verb, err)
	}
	return err
}

// note takes down who holds the lease, and since when we do. A renewal may come so late
// that it begins anew to be ours.
func (l *lease) note(holder string, renewed time.Time) {
	if l.takeDown(holder, renewed) && l.led != nil {
		l.led()
	}
}

// takeDown reports whether the lease has become ours.
func (l *lease) takeDown(holder string, renewed time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	was := l.isOursAt(now)
	l.renewed = renewed
	if holder != l.holder {
		l.tell(holder)
	}
	return !was && l.isOursAt(now)
}

// tell logs who holds the lease from now on. l.mu is held.
func (l *lease) tell(holder string) {
	switch {
	case holder == l.Identity():
		l.log.Info("This replica leads now")
	case l.holder == l.Identity():
		l.log.Info("This replica leads no more", "leader", holder)
	case holder != "":
		l.log.Info("Another replica leads", "leader", holder)
	}
	l.holder = holder
}

// lost is called when the lease is not ours any more, given back or not.
func (l *lease) lost() { l.note("", time.Time{}) }

// report logs a failure once until another one follows, or none.
func (l *lease) report(verb string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.failure(verb, err)
	if text == l.reported[verb] {
		return
	}
	if text != "" {
		l.reported[verb] = text
		l.log.Warn("Cannot take part in the election of a leader; without one nothing is put to sleep", "error", text)
		return
	}
	if delete(l.reported, verb); len(l.reported) == 0 {
		l.log.Info("Takes part in the election of a leader again")
	}
}

// failure is what is wrong, empty if nothing is: a lease that is not there will be
// made, and one that somebody else has written is read again.
func (l *lease) failure(verb string, err error) string {
	switch {
	case err == nil, apierrors.IsNotFound(err) && verb != "create", apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return ""
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("the right to %s leases of API group coordination.k8s.io in namespace %s is missing: %v", verb, l.LeaseMeta.Namespace, err)
	}
	return err.Error()
}
