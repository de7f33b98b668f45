package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/observe/workers/internal/asking"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// lookTime bounds a fresh look: another's question may have to be waited for.
const lookTime = 2 * asking.AnswerTime

// ErrUnanswered says that workers have not answered, or not in a way that can be
// understood. They may execute something: one of the solo pool that does cannot answer.
var ErrUnanswered = errors.New("workers have not told what they execute")

// Fresh asks the workers on some hosts what they execute, now, and returns nil when all
// have answered: what they execute is then in the store, in Worker.Told. It asks those
// that live by their heartbeats, of all brokers of the namespace. Of others it says
// nothing: of workers that are silent or shut down, and of pods whose worker was never
// heard, the store tells. Where the configuration forbids to ask (Spec.Control), nobody
// is asked, and heartbeats are all there is.
//
// The error names the workers that have not answered, and wraps ErrUnanswered for them; it
// wraps ErrNoControl for brokers whose workers cannot be asked. Answers that came are in
// the store all the same.
//
// It blocks until all have answered; who does not is waited for a second, or two if
// others are being asked already; it returns at once if there is nobody to ask. The
// questions that are asked in any case go on undisturbed. Calls at the same time share
// questions.
//
// Messages that a worker has reserved are no matter of this look: the broker counts them
// as in flight. To miss no task on its way, sample the broker first.
func (g *Group) Fresh(ctx context.Context, namespace string, hosts []string) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	looks := g.store.looks(namespace, hosts, time.Now())
	errs := make([]error, len(looks))
	var looking sync.WaitGroup
	for i, l := range looks {
		looking.Go(func() { errs[i] = l.ask(ctx, g.store) })
	}
	looking.Wait()
	return errors.Join(errs...)
}

// look is a question to some workers of one broker.
type look struct {
	broker       queue.BrokerRef
	desks        *asking.Desks
	asked        []identity
	prompt, slow []string // their names
	ambiguous    []string // the names of those who are not asked
}

// looks says whom to ask where.
func (s *Store) looks(namespace string, hosts []string, now time.Time) []*look {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var looks []*look
	for ref, b := range s.books {
		if ref.Namespace == namespace && b.desks != nil {
			looks = append(looks, b.look(hosts, now))
		}
	}
	slices.SortFunc(looks, func(a, b *look) int { return strings.Compare(a.broker.Name, b.broker.Name) })
	return looks
}

// look sorts the workers on some hosts by whether and where they are to be asked. Where
// several have one name, nobody is: whose answer one gets could not be told.
func (s *shelf) look(hosts []string, now time.Time) *look {
	l := &look{broker: s.broker, desks: s.desks}
	for _, host := range hosts {
		for _, e := range s.hosts[host] {
			switch {
			case !e.isLive(now):
				continue
			case s.isAmbiguous(e, now):
				l.ambiguous = append(l.ambiguous, e.Node)
				continue
			case e.evasive:
				l.slow = append(l.slow, e.Node)
			default:
				l.prompt = append(l.prompt, e.Node)
			}
			l.asked = append(l.asked, identity{e.Node, e.PID})
		}
	}
	return l
}

// ask asks, and has the store remember the answers.
func (l *look) ask(ctx context.Context, store *Store) error {
	told, err := l.desks.Ask(ctx, l.prompt, l.slow)
	store.edit(l.broker, func(b *shelf) { b.tell(l.asked, told, err == nil, time.Now()) })
	if err != nil {
		return fmt.Errorf("broker %s: %w: %w", l.broker, ErrNoControl, err)
	}
	var errs []error
	if silent := l.silent(told); len(silent) > 0 {
		errs = append(errs, fmt.Errorf("broker %s: %w: no answer within %s of %s", l.broker, ErrUnanswered, asking.AnswerTime, asking.Names(silent)))
	}
	if len(l.ambiguous) > 0 {
		errs = append(errs, fmt.Errorf("broker %s: %w: several have the same name, so that answers could not be told apart: %s", l.broker, ErrUnanswered, asking.Names(l.ambiguous)))
	}
	return errors.Join(errs...)
}

// silent are the names of those who have not answered.
func (l *look) silent(told asking.Told) []string {
	var silent []string
	for _, id := range l.asked {
		if _, answered := told[id.node]; !answered {
			silent = append(silent, id.node)
		}
	}
	return silent
}

// tell takes in what workers have said when they were asked at once. Complete is false
// where they may not have been asked.
func (b *book) tell(asked []identity, told asking.Told, complete bool, now time.Time) {
	for _, id := range asked {
		e := b.workers[id]
		tasks, answered := told[id.node]
		switch {
		case e == nil: // it is gone
		case answered:
			e.evasive = false
			e.told(tasks, now)
		case complete:
			e.evasive = true
		}
	}
}
