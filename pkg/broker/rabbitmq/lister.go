package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
)

const (
	// listTimeout bounds one list of the management API. It may be longer than
	// that of a sample, which does not wait for it.
	listTimeout = 5 * time.Second
	// patience is how long a sample waits for the list of the management API: one
	// that takes longer is used by a later sample, so that the backlog stays
	// fresh.
	patience = 300 * time.Millisecond
	// otherClusterPause is how long an API of another cluster is left alone.
	otherClusterPause = 3 * time.Second
)

// listing is what the management API said.
type listing struct {
	// at is when it was asked.
	at time.Time
	// cluster is the one whose queues these are.
	cluster string
	queues  map[string]management.Queue
}

// lister keeps the latest list of the management API. Lists are made one at a
// time, beside the samples. It is not safe for concurrent use.
type lister struct {
	client *management.Client
	stop   context.CancelFunc // of the list under way, nil if there is none
	done   chan outcome

	latest *listing // nil before the first, and once refused
	// failure is why the last attempt failed, nil if it did not.
	failure error
	// doubtsCluster is set when the API turns out to be of another cluster than
	// the broker, until the broker is asked again which it is.
	doubtsCluster bool
	// next is when the API may be asked again.
	next time.Time
}

// outcome is how one attempt ended.
type outcome struct {
	listing *listing
	err     error
}

func newLister(s management.Settings) *lister {
	return &lister{client: management.New(s), done: make(chan outcome, 1)}
}

// refresh makes a new list, for a broker whose cluster has this name, and waits
// for it as long as patience allows: for the first for half of what ctx allows.
// While one is under way it waits for that.
func (l *lister) refresh(ctx context.Context, cluster string) {
	if l.stop == nil && !time.Now().Before(l.next) {
		l.begin(ctx, cluster)
	}
	if l.stop == nil {
		return
	}
	wait := patience
	if deadline, ok := ctx.Deadline(); ok && l.latest == nil && l.failure == nil {
		wait = max(wait, time.Until(deadline)/2)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case o := <-l.done:
		l.end(o)
	case <-timer.C:
	case <-ctx.Done():
	}
}

// begin asks beside the sample that it is for, and longer than that if need be.
func (l *lister) begin(ctx context.Context, cluster string) {
	ctx, l.stop = context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
	// A fault may have been a change of what the API's URL leads to.
	verified := l.latest != nil && l.latest.cluster == cluster && l.failure == nil
	go func() {
		listing, err := l.list(ctx, cluster, verified)
		l.done <- outcome{listing, err}
	}()
}

// list asks the API. It touches nothing of the lister but the client.
func (l *lister) list(ctx context.Context, cluster string, verified bool) (*listing, error) {
	if !verified {
		if err := l.verify(ctx, cluster); err != nil {
			return nil, err
		}
	}
	at := time.Now()
	queues, err := l.client.Queues(ctx)
	return &listing{at, cluster, queues}, err
}

// errOtherCluster says that two URLs lead to two brokers.
var errOtherCluster = errors.New("the management API is of another cluster")

// verify compares the clusters behind AMQP and behind the management API. A
// broker that does not say which it is, is trusted.
func (l *lister) verify(ctx context.Context, cluster string) error {
	name, err := l.client.ClusterName(ctx)
	if err != nil {
		return err
	}
	if cluster != "" && name != cluster {
		return fmt.Errorf("%w: that at %s is of cluster %q, the broker is of cluster %q: correct rabbitmq.managementURL",
			errOtherCluster, l.client.Address(), name, cluster)
	}
	return nil
}

// end takes over how an attempt ended. The API is asked again no sooner than
// after as long as the attempt took, so that a broker with very many queues is
// not kept busy by it alone.
func (l *lister) end(o outcome) {
	l.stop()
	l.stop = nil
	l.failure = o.err
	var refused *management.RefusedError
	switch {
	case o.err == nil:
		l.latest = o.listing
		l.next = time.Now().Add(time.Since(o.listing.at))
	case errors.As(o.err, &refused):
		l.latest = nil // a right that was taken away, not a hiccup
	case errors.Is(o.err, errOtherCluster):
		l.latest, l.doubtsCluster = nil, true
		l.next = time.Now().Add(otherClusterPause)
	}
}

// current is the latest list of a cluster, or why there is none that is young
// enough.
func (l *lister) current(cluster string, now time.Time, maxAge time.Duration) (*listing, error) {
	if l.latest != nil && l.latest.cluster == cluster && now.Sub(l.latest.at) <= maxAge {
		return l.latest, nil
	}
	if l.failure != nil {
		return nil, l.failure
	}
	return nil, fmt.Errorf("the management API at %s has not answered yet", l.client.Address())
}

// close ends a list that is under way and waits for its end.
func (l *lister) close() {
	if l.stop != nil {
		l.stop()
		<-l.done
		l.stop = nil
	}
	l.client.Close()
}
