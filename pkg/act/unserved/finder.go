package unserved

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes/typed/autoscaling/v2"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

const (
	// settling is for how long a namespace must have been asked about before anything is
	// said: a broker may be made together with the HPA. It is below the HPA's sync period
	// of 15 s, so that the second question counts.
	settling = 10 * time.Second
	// lookAfter is the least time from one look at the HPAs of a namespace to the next.
	lookAfter = time.Minute
	// remindAfter is when the same is said again: it stays until somebody corrects it.
	remindAfter = 30 * time.Minute
	// mostNamespaces and mostQuestions bound what is remembered: anybody who may read
	// metrics may ask about namespaces that do not exist.
	mostNamespaces, mostQuestions = 1000, 100
	// listTimeout bounds one look; mostHPAs what it brings.
	listTimeout, mostHPAs = 10 * time.Second, 500
)

// Journal says to the owner of an HPA that no broker serves its namespace.
type Journal interface {
	Unserved(t target.Target, at time.Time)
}

// Finder looks for the HPAs that asked in vain. Make it with New.
type Finder struct {
	hpas    client.HorizontalPodAutoscalersGetter
	served  func(namespace string) (served, known bool)
	journal Journal
	log     *slog.Logger
	asked   chan string

	// Of the goroutine of Run.
	namespaces map[string]*namespace
	reported   string // the failure that was logged last
}

// namespace is one that was asked about and has no broker.
type namespace struct {
	since  time.Time // of the first question
	looked time.Time
	told   map[types.UID]time.Time
}

// New makes a finder. Served tells whether a namespace has a broker, if that is known. It
// needs the right to list HorizontalPodAutoscalers.
func New(hpas client.HorizontalPodAutoscalersGetter, served func(namespace string) (served, known bool), journal Journal, log *slog.Logger) *Finder {
	return &Finder{
		hpas: hpas, served: served, journal: journal, log: log,
		asked: make(chan string, mostQuestions), namespaces: map[string]*namespace{},
	}
}

// Asked tells that somebody has asked for a metric of ours in a namespace without a
// broker. It does not block, and is safe for concurrent use.
func (f *Finder) Asked(namespace string) {
	select {
	case f.asked <- namespace:
	default: // it will be asked again
	}
}

// Run looks until ctx is done, and returns nil. It blocks.
func (f *Finder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case name := <-f.asked:
			if n := f.due(name, time.Now()); n != nil {
				f.report(f.look(ctx, name, n))
			}
		}
	}
}

// due returns what is known of a namespace whose HPAs are to be looked at now, else nil.
// One that has a broker, or may have one, is forgotten.
func (f *Finder) due(name string, now time.Time) *namespace {
	if served, known := f.served(name); served || !known {
		delete(f.namespaces, name)
		return nil
	}
	n := f.namespaces[name]
	if n == nil {
		if len(f.namespaces) < mostNamespaces {
			f.namespaces[name] = &namespace{since: now, told: map[types.UID]time.Time{}}
		}
		return nil
	}
	if now.Sub(n.since) < settling || now.Sub(n.looked) < lookAfter {
		return nil
	}
	n.looked = now
	return n
}

// look tells each HPA of a namespace that scales on a metric of ours, unless it was told
// lately. Where nobody does, the question was a person's, and the namespace is forgotten.
func (f *Finder) look(ctx context.Context, name string, n *namespace) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	found, err := f.hpas.HorizontalPodAutoscalers(name).List(ctx, metav1.ListOptions{ResourceVersion: "0", Limit: mostHPAs})
	if err != nil {
		return fmt.Errorf("list the HorizontalPodAutoscalers of namespace %s, which has no broker: %w", name, err)
	}
	told := map[types.UID]time.Time{}
	for i := range found.Items {
		t, _ := target.Of(&found.Items[i])
		if len(t.Metrics) == 0 {
			continue
		}
		at, before := n.told[t.UID]
		if !before || n.looked.Sub(at) >= remindAfter {
			at = n.looked
			f.journal.Unserved(t, at)
		}
		told[t.UID] = at
	}
	n.told = told
	if len(told) == 0 {
		delete(f.namespaces, name)
	}
	return nil
}

// report logs a failure once until another one follows, or none.
func (f *Finder) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != f.reported {
		f.log.Warn("HorizontalPodAutoscalers that no broker serves are not told so", "error", err)
	}
	f.reported = text
}
