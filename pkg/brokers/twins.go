package brokers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Twins says of each broker, at its place, why it is not to be used beside those before
// it in the list: one of them has its name, or reads, for the same namespace, queues of
// the same broker that it reads. Such queues would be counted twice. Nil is said of the
// others. What has an Err is compared by name alone. Two host names of one server are
// taken for two brokers.
func Twins(all []Broker) []error {
	said := make([]error, len(all))
	byPlace := map[string][]int{}
	byName := map[string]bool{}
	for i, b := range all {
		if byName[b.String()] {
			said[i] = fmt.Errorf("metadata.name: the brokers file has a broker of this name in namespace %s, which goes first: rename one", b.Namespace)
			continue
		}
		byName[b.String()] = true
		place, ok := placeOf(b)
		if !ok {
			continue
		}
		for _, j := range byPlace[place] {
			if overlap(all[j], b) {
				said[i] = fmt.Errorf("spec.url: %s reads queues of the same broker already: they would be counted twice; "+
					"delete one, or list different queues in spec.queues of both", all[j])
			}
		}
		if said[i] == nil {
			byPlace[place] = append(byPlace[place], i)
		}
	}
	return said
}

// placeOf tells brokers of one namespace apart by where their queues are: the servers,
// in any order, the database or virtual host, and what comes before the names of keys.
func placeOf(b Broker) (string, bool) {
	u, err := celery.ParseBrokerURL(b.URL)
	if b.Err != nil || err != nil {
		return "", false
	}
	var servers []string
	for _, e := range u.Endpoints {
		servers = append(servers, fmt.Sprintf("%s %d %q", e.Address(), e.DB, e.VirtualHost))
	}
	slices.Sort(servers)
	return fmt.Sprintf("%s %s %s %q %q", b.Namespace, u.Transport, strings.Join(servers, " "), b.Spec.Redis.MasterName, b.Spec.Redis.GlobalKeyPrefix), true
}

// overlap tells whether two read a queue that is the same. Who lists none reads all.
func overlap(a, b Broker) bool {
	if len(a.Spec.Queues) == 0 || len(b.Spec.Queues) == 0 {
		return true
	}
	names := map[string]bool{}
	for _, q := range a.Spec.Queues {
		names[q.Name] = true
	}
	for _, q := range b.Spec.Queues {
		if names[q.Name] {
			return true
		}
	}
	return false
}
