package certificates

import (
	"errors"
	"fmt"
	"time"
)

// service is the name of the Service by which celery-hpa is reached, as in the
// manifests.
const service = "celery-hpa"

// Options say which Secret is kept, and for how long what is in it is good. The zero
// value keeps none; DefaultOptions has what else is usual.
type Options struct {
	// Secret is the name of the Secret. Empty: none is kept.
	Secret string
	// Namespace is that of celery-hpa: of the Secret and of the Service celery-hpa.
	Namespace string
	// Lifetime is that of a serving certificate, AuthorityLifetime that of an authority.
	// Each is followed by another when a third of it is left.
	Lifetime, AuthorityLifetime time.Duration
	// Settling is how long a step of an authority's succession is in place before the
	// next one. It must be longer than a replica takes to notice a change: some Intervals.
	Settling time.Duration
	// Interval is the time from one look at the Secret to the next and, for the leader,
	// at what is trusted.
	Interval time.Duration
}

// DefaultOptions keep no Secret.
func DefaultOptions() Options {
	const year = 365 * 24 * time.Hour
	return Options{Lifetime: year, AuthorityLifetime: 10 * year, Settling: time.Minute, Interval: 5 * time.Second}
}

// validate checks what must hold between the options for a succession to come to its
// end.
func (o Options) validate() error {
	switch {
	case o.Namespace == "":
		return errors.New("the namespace of celery-hpa must be known")
	case o.Interval <= 0 || o.Settling < 2*o.Interval:
		return fmt.Errorf("a settling time of %s is too short where a change is noticed after %s", o.Settling, o.Interval)
	case o.Lifetime < 3*o.Settling:
		return fmt.Errorf("a lifetime of %s is too short for a serving certificate: a third of it must be at least %s", o.Lifetime, o.Settling)
	case o.AuthorityLifetime < 2*o.Lifetime:
		return fmt.Errorf("a lifetime of %s is too long for a serving certificate: it must be at most half of %s, that of its authority", o.Lifetime, o.AuthorityLifetime)
	}
	return nil
}

// names are the DNS names of the Service, by which celery-hpa is asked.
func (o Options) names() []string {
	return []string{service + "." + o.Namespace, service + "." + o.Namespace + ".svc"}
}
