package externalmetrics

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Queue is one that a selector matches, as it is now.
type Queue struct {
	Broker queue.BrokerRef
	// Name is the broker's own, Label the one in selectors.
	Name, Label string
	// Depth has each count unknown that is too old.
	Depth queue.Depth
}

// Queues returns the queues whose values GetExternalMetric would return for a selector,
// ordered by broker and label. Its errors are the same, but that a queue of which
// nothing is known is among the others, with all counts unknown.
func (p *Provider) Queues(namespace string, selector labels.Selector, now time.Time) ([]Queue, error) {
	matches, err := p.matches(namespace, selector)
	if err != nil {
		return nil, err
	}
	queues := make([]Queue, 0, len(matches))
	for _, m := range matches {
		name, err := m.broker.Name(m.label)
		if err != nil {
			return nil, unavailable(err)
		}
		depth, err := m.broker.Lookup(m.label, now)
		if err != nil {
			unknown := queue.Unknown(err)
			depth = queue.Depth{Backlog: unknown, InFlight: unknown, Scheduled: unknown, Oldest: unknown, Wait: unknown, Work: unknown}
		}
		queues = append(queues, Queue{Broker: m.broker.Ref, Name: name, Label: m.label, Depth: depth})
	}
	return queues, nil
}

// Names returns the broker's own names of the queues that Queues would return, by broker,
// with the same errors. It looks at no count.
func (p *Provider) Names(namespace string, selector labels.Selector) (map[queue.BrokerRef][]string, error) {
	matches, err := p.matches(namespace, selector)
	if err != nil {
		return nil, err
	}
	names := map[queue.BrokerRef][]string{}
	for _, m := range matches {
		name, err := m.broker.Name(m.label)
		if err != nil {
			return nil, unavailable(err)
		}
		names[m.broker.Ref] = append(names[m.broker.Ref], name)
	}
	return names, nil
}
