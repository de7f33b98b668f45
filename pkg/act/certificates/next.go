package certificates

import (
	"crypto/x509"
	"fmt"
	"time"
)

// change is what is to be done with the Secret.
type change int

const (
	// nothing is to be done, or not yet.
	nothing change = iota
	// remake makes an authority and a serving certificate, and trusts nothing else.
	remake
	// succeed has a new authority trusted beside those that are. It signs later.
	succeed
	// renew has the authority that signs sign a new serving certificate.
	renew
	// forget has no authority trusted but the one that signs.
	forget
)

// next is what is to be in the Secret after s, and why. It is s itself where nothing is
// to be done. Since is since when all has been as s has it: every caBundle, and the
// Secret, for the replicas to see; zero if it is not. Next does no I/O but to draw random
// numbers, and an error is a failure of that.
func (o Options) next(s state, now, since time.Time) (state, change, string, error) {
	what, why := o.judge(s, now, !since.IsZero() && now.Sub(since) >= o.Settling)
	var err error
	switch what {
	case nothing:
	case remake:
		if s, err = o.withNewAuthority(state{}, now); err == nil {
			s, err = o.withNewServing(s, now)
		}
	case succeed:
		s, err = o.withNewAuthority(s, now)
	case renew:
		s, err = o.withNewServing(s, now)
	case forget:
		s = s.trusting([]*x509.Certificate{s.signer})
	}
	return s, what, why, err
}

// judge is what next does, where settled says whether the last step is.
func (o Options) judge(s state, now time.Time, settled bool) (change, string) {
	if s.serving == nil {
		return remake, s.flaw
	}
	if s.flaw != "" {
		return succeed, s.flaw
	}
	if why := expired(s.signer, now); why != "" {
		return succeed, "the authority " + why
	}
	if why := o.unusable(s.serving, now); why != "" {
		return renew, "the serving certificate " + why
	}
	if s.by != s.signer {
		if settled {
			return renew, "its new authority is trusted everywhere"
		}
		return nothing, ""
	}
	return rotate(s, now, settled)
}

// rotate is judge where nothing is wrong. The serving certificate goes first, so that it
// lasts until the successor of its authority signs.
func rotate(s state, now time.Time, settled bool) (change, string) {
	switch {
	case due(s.serving, now):
		return renew, "a third of its life is left"
	case due(s.signer, now):
		return succeed, "a third of the authority's life is left"
	case settled && len(s.trusted) > 1:
		return forget, "nothing is served any more that others have signed"
	}
	return nothing, ""
}

// unusable says why nobody would believe a serving certificate; empty if there is no
// reason.
func (o Options) unusable(serving *x509.Certificate, now time.Time) string {
	for _, name := range o.names() {
		if serving.VerifyHostname(name) != nil {
			return "is not for " + name
		}
	}
	return expired(serving, now)
}

func expired(c *x509.Certificate, now time.Time) string {
	switch {
	case now.After(c.NotAfter):
		return fmt.Sprintf("has ended at %s", c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("begins at %s", c.NotBefore.Format(time.RFC3339))
	}
	return ""
}

// due tells whether a third of a certificate's life is left. That it is good for an hour
// before it was made is no part of its life.
func due(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	if life > skew {
		life -= skew
	}
	return !now.Before(c.NotAfter.Add(-life / 3))
}
