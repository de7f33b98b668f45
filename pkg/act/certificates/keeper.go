package certificates

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// timeout bounds a look, with all that is written after it. Between the end of one
	// leader and the beginning of the next are 3 s (see package leader), so that what
	// was begun as the leader is not written after another has.
	timeout = 3 * time.Second
	// heartbeat is how often it is asked who leads: a new leader does not wait for the
	// next look.
	heartbeat = time.Second
	// attempts is how many times the Secret is read in one look: as many as there are
	// changes in a row, and some more for what others write.
	attempts = 5
)

// noSecret is the flaw of what is not there.
const noSecret = "there is no Secret"

// Keeper keeps the Secret, and provides the serving certificate in it. Make it with
// NewKeeper, call Prepare, then Run. As a provider it is safe for concurrent use.
type Keeper struct {
	options Options
	secret  secret
	bundles []*bundle
	leads   func() bool
	said    *sayings

	// nobodys is served while nothing else is: nobody trusts its authority, nor has the
	// key of that. So probes are answered, and the API server asks in vain.
	nobodys   state
	served    atomic.Pointer[state] // nil while there is nothing of the Secret to serve
	mu        sync.Mutex
	listeners []dynamiccertificates.Listener

	// Of Prepare, and then of Run, alone.
	settled settled
}

var _ dynamiccertificates.CertKeyContentProvider = (*Keeper)(nil)

// settled is since when what the Secret holds is in all caBundles.
type settled struct {
	version string // the Secret's resourceVersion
	since   time.Time
}

// NewKeeper makes a keeper for the cluster of this configuration. It needs the rights to
// create a Secret in the namespace, to get and update that of the options, and to get and
// update the APIService v1beta1.external.metrics.k8s.io and the
// ValidatingWebhookConfiguration celery-hpa. Leads tells whether this replica leads, and
// must do no I/O. NewKeeper asks nobody yet.
func NewKeeper(config *rest.Config, options Options, leads func() bool, log *slog.Logger, registry prometheus.Registerer) (*Keeper, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("keep a serving certificate: %w", err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	nobodys, _, _, err := options.next(state{}, time.Now(), time.Time{})
	if err != nil {
		return nil, err
	}
	nobodys.key, nobodys.keyPEM = nil, nil
	k := &Keeper{
		options: options, leads: leads, nobodys: nobodys,
		secret:  secret{clients.CoreV1().Secrets(options.Namespace), options.Namespace, options.Secret},
		bundles: newBundles(objects, options.Namespace),
		said:    newSayings(log.With("secret", options.Namespace+"/"+options.Secret)),
	}
	if err := registry.Register(expiry{k}); err != nil {
		return nil, fmt.Errorf("register the metric of the serving certificate: %w", err)
	}
	return k, nil
}

// Prepare reads the Secret, or makes it, so that there is something to serve. It blocks
// for some seconds at the most. A failure is logged; Run tries again.
func (k *Keeper) Prepare(ctx context.Context) { k.look(ctx) }

// Run keeps the Secret until ctx is done, and then returns nil. It blocks.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(min(heartbeat, k.options.Interval))
	defer ticker.Stop()
	var looked time.Time
	led := false
	for {
		leads := k.leads()
		if (leads && !led) || time.Since(looked) >= k.options.Interval {
			looked = time.Now()
			k.look(ctx)
		}
		led = leads
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look takes over what the Secret holds and, for the leader, changes what is to be
// changed.
func (k *Keeper) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	for range attempts {
		var again bool
		again, err = k.step(bounded)
		if !again {
			break
		}
	}
	if ctx.Err() == nil {
		k.said.failed("secret", "Cannot keep the serving certificate; trying again", err)
	}
}

// step reads the Secret once, and writes it once at the most. Again says that it is to be
// read again at once: it has changed.
func (k *Keeper) step(ctx context.Context) (again bool, err error) {
	found, err := k.secret.get(ctx)
	if err != nil {
		return false, err
	}
	s := k.known(found)
	if s.serving != nil {
		k.serve(s, "Serving with the certificate of the Secret")
	}
	if !k.leads() {
		k.settled = settled{}
		if s.flaw == noSecret && s.serving == nil {
			return k.advance(ctx, found, s)
		}
		return false, needsLeader(s)
	}
	if found != nil && s.flaw == "" {
		k.settle(ctx, found.ResourceVersion, s.trustedPEM)
	}
	return k.advance(ctx, found, s)
}

// advance writes what is to follow, if anything is.
func (k *Keeper) advance(ctx context.Context, found *corev1.Secret, s state) (again bool, err error) {
	after, what, why, err := k.options.next(s, time.Now(), k.settled.since)
	if what == nothing || err != nil {
		return false, err
	}
	if err := k.secret.put(ctx, found, after.encoded()); err != nil {
		return isOutrun(err, found != nil), err
	}
	k.tell(ctx, what, why, s, after)
	k.serve(after, "")
	return true, nil
}

// isOutrun tells whether a write has failed because somebody else has written before.
func isOutrun(err error, updating bool) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || (updating && apierrors.IsNotFound(err))
}

// known is what the Secret holds. Where that is nothing to serve, it is what was served
// last, with the flaw that the Secret holds it no more.
func (k *Keeper) known(found *corev1.Secret) state {
	s := state{flaw: noSecret}
	if found != nil && len(found.Data) > 0 { // else it was made to be filled
		s = decode(found.Data)
	}
	if served := k.served.Load(); s.serving == nil && served != nil {
		flaw := s.flaw
		s = *served
		s.flaw = flaw
	}
	return s
}

// needsLeader is all that a replica says of a flaw that does not lead.
func needsLeader(s state) error {
	if s.flaw == "" {
		return nil
	}
	return errors.New("the leader has to repair the Secret: " + s.flaw)
}

// settle writes the authorities into the caBundles, and notes since when they are there.
func (k *Keeper) settle(ctx context.Context, version string, trusted []byte) {
	everywhere, written := true, false
	for _, b := range k.bundles {
		wrote, err := b.keep(ctx, trusted)
		written = written || wrote
		everywhere = everywhere && (err == nil || errors.Is(err, errLeft))
		if ctx.Err() == nil {
			k.said.unkept(b, err)
		}
	}
	switch {
	case !everywhere:
		k.settled = settled{}
	case written || k.settled.version != version:
		k.settled = settled{version: version, since: time.Now()}
	}
}

// tell logs a change that was written, from one state to another.
func (k *Keeper) tell(ctx context.Context, what change, why string, from, to state) {
	log := k.said.log
	switch what {
	case nothing:
	case remake:
		level, message := slog.LevelInfo, "Made an authority and a serving certificate"
		if why != noSecret {
			level, message = slog.LevelWarn, "Made an authority and a serving certificate anew; requests fail until every replica has taken them over"
		}
		log.Log(ctx, level, message, "reason", why, "until", to.serving.NotAfter)
	case succeed:
		level, message := slog.LevelInfo, "Made a new authority, which signs once it is trusted everywhere"
		if from.flaw != "" {
			level, message = slog.LevelWarn, "Repaired the Secret, with a new authority, which signs once it is trusted everywhere"
		}
		log.Log(ctx, level, message, "reason", why, "until", to.signer.NotAfter)
	case renew:
		log.Info("Renewed the serving certificate", "reason", why, "until", to.serving.NotAfter)
	case forget:
		log.Info("Trusting the old authority no more", "reason", why)
	}
}
