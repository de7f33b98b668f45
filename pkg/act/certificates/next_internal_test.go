package certificates

// In the package: what follows what is decided without a cluster, and for a clock of ten
// years.

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"testing"
	"time"
)

const day = 24 * time.Hour

func options() Options {
	o := DefaultOptions()
	o.Namespace = "n"
	return o
}

func noon() time.Time { return time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC) }

// after is what is in the Secret after some steps, each settled, beginning with nothing.
func after(t *testing.T, now time.Time, s state, want ...change) state {
	t.Helper()
	for _, w := range want {
		next, got, why, err := options().next(s, now, now.Add(-time.Hour))
		if err != nil || got != w {
			t.Fatalf("next is %d (%s), %v; want %d", got, why, err, w)
		}
		s = decode(next.encoded())
	}
	return s
}

func TestNext(t *testing.T) {
	began := noon()
	fresh := after(t, began, state{}, remake)
	old := began.Add(10*365*day*2/3 + day) // when a third of the authority's life is left
	renewed := after(t, old.Add(-2*day), fresh, renew)
	succeeded := after(t, old, renewed, succeed)
	signed := after(t, old, succeeded, renew)
	without := func(s state, name string) state {
		data := s.encoded()
		delete(data, name)
		return decode(data)
	}
	elsewhere := options()
	elsewhere.Namespace = "elsewhere"
	const settled, unsettled = time.Minute, time.Minute - time.Second
	for _, tt := range []struct {
		rule  string
		s     state
		at    time.Time
		since time.Duration // for how long all is in place; 0: it is not
		want  change
	}{
		{"nothing is there", state{flaw: noSecret}, began, 0, remake},
		{"all is new", fresh, began, settled, nothing},
		{"all is new, and elsewhere not known yet", fresh, began, 0, nothing},
		{"more than a third of the certificate's life is left", fresh, began.Add(243 * day), settled, nothing},
		{"a third of the certificate's life is left", fresh, began.Add(244 * day), settled, renew},
		{"a certificate is renewed whoever knows of its authority", fresh, began.Add(244 * day), 0, renew},
		{"a certificate that has ended", fresh, began.Add(366 * day), 0, renew},
		{"a certificate that will begin", fresh, began.Add(-2 * time.Hour), 0, succeed},
		{"a third of the authority's life is left", renewed, old, 0, succeed},
		{"a successor nobody knows", succeeded, old, 0, nothing},
		{"a successor that not everybody has known for long", succeeded, old, unsettled, nothing},
		{"a successor that everybody knows", succeeded, old, settled, renew},
		{"a successor nobody knows, and nothing to serve any more", succeeded, old.Add(366 * day), 0, renew},
		{"a successor has signed", signed, old, unsettled, nothing},
		{"a successor has signed, and every replica serves that", signed, old, settled, forget},
		{"the old authority is forgotten", after(t, old, signed, forget), old, settled, nothing},
		{"authority and certificate have ended", fresh, began.Add(11 * 365 * day), 0, succeed},
		{"the authority's key is missing", without(fresh, signerKeyName), began, settled, succeed},
		{"the certificate is missing", without(fresh, servingName), began, settled, remake},
		{"the certificate's key is missing", without(fresh, servingKeyName), began, settled, remake},
		{"what is trusted is missing", without(fresh, trustedName), began, settled, remake},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			var since time.Time
			if tt.since > 0 {
				since = tt.at.Add(-tt.since)
			}
			got, what, why, err := options().next(tt.s, tt.at, since)
			if err != nil || what != tt.want {
				t.Fatalf("next is %d (%s), %v; want %d", what, why, err, tt.want)
			}
			if (what == nothing) != (why == "") {
				t.Errorf("next is %d because %q", what, why)
			}
			if (what == nothing) != bytes.Equal(got.trustedPEM, tt.s.trustedPEM) && what != renew {
				t.Error("the authorities change with their change, and not without")
			}
		})
	}
	t.Run("a certificate for another namespace", func(t *testing.T) {
		got, what, why, err := elsewhere.next(fresh, began, time.Time{})
		if err != nil || what != renew || got.serving.VerifyHostname("celery-hpa.elsewhere.svc") != nil {
			t.Errorf("next is %d (%s), %v; want it renewed for the right names", what, why, err)
		}
	})
}

func TestWhatIsMade(t *testing.T) {
	now := noon()
	s := after(t, now, state{}, remake)
	if s.flaw != "" || len(s.trusted) != 1 {
		t.Fatalf("flaw %q, %d authorities", s.flaw, len(s.trusted))
	}
	for name, c := range map[string]*x509.Certificate{"the authority": s.signer, "the certificate": s.serving} {
		if want := now.Add(-time.Hour); !c.NotBefore.Equal(want) {
			t.Errorf("%s begins at %s, want %s", name, c.NotBefore, want)
		}
		if c.PublicKeyAlgorithm != x509.ECDSA || c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("%s has a key of %s and a signature of %s", name, c.PublicKeyAlgorithm, c.SignatureAlgorithm)
		}
	}
	if want := now.Add(10 * 365 * day); !s.signer.NotAfter.Equal(want) {
		t.Errorf("the authority ends at %s, want %s", s.signer.NotAfter, want)
	}
	if want := now.Add(365 * day); !s.serving.NotAfter.Equal(want) {
		t.Errorf("the certificate ends at %s, want %s", s.serving.NotAfter, want)
	}
}

func TestWhoBelieves(t *testing.T) {
	now := noon()
	s := after(t, now, state{}, remake)
	if s.serving.IsCA || s.signer.MaxPathLen != 0 || !s.signer.MaxPathLenZero {
		t.Error("somebody else may sign")
	}
	for _, name := range []string{"celery-hpa.n", "celery-hpa.n.svc"} {
		if err := believe(s.trustedPEM, s.serving, name, now); err != nil {
			t.Error(err)
		}
	}
	if believe(s.trustedPEM, s.serving, "celery-hpa.other.svc", now) == nil {
		t.Error("it is good for another namespace")
	}
	if other := after(t, now, state{}, remake); believe(other.trustedPEM, s.serving, "celery-hpa.n.svc", now) == nil {
		t.Error("another authority is as good")
	}
}

// believe is what a client does with the certificate of a server.
func believe(trusted []byte, serving *x509.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	_, err := serving.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
	return err
}

func TestDecodeNamesFlaws(t *testing.T) {
	good, other := after(t, noon(), state{}, remake), after(t, noon(), state{}, remake)
	for _, tt := range []struct {
		rule   string
		change func(data map[string][]byte)
		want   string
		serves bool
	}{
		{"as it is made", func(map[string][]byte) {}, "", true},
		{"with more than is needed", func(d map[string][]byte) { d["more"] = []byte("x") }, "", true},
		{"nothing", func(d map[string][]byte) { clear(d) }, "ca.crt does not hold certificates of authorities", false},
		{"no text in ca.crt", func(d map[string][]byte) { d[trustedName] = []byte("\xff\x00") }, "ca.crt does not hold certificates of authorities", false},
		{"no authority in ca.crt", func(d map[string][]byte) { d[trustedName] = d[servingName] }, "ca.crt does not hold certificates of authorities", false},
		{"other authorities", func(d map[string][]byte) { d[trustedName] = other.trustedPEM }, "tls.crt is signed by no authority of ca.crt", false},
		{"a part of a certificate", func(d map[string][]byte) { d[servingName] = d[servingName][:200] }, "tls.crt and tls.key are not a certificate and its key", false},
		{"the key of another", func(d map[string][]byte) { d[servingKeyName] = other.servingKeyPEM }, "tls.crt and tls.key are not a certificate and its key", false},
		{"the authority's key is another's", func(d map[string][]byte) { d[signerKeyName] = other.keyPEM }, "ca.key is the key of no authority of ca.crt", true},
		{"the authority's key is no key", func(d map[string][]byte) { d[signerKeyName] = []byte("x") }, "ca.key is the key of no authority of ca.crt", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			data := good.encoded()
			tt.change(data)
			s := decode(data)
			if s.flaw != tt.want || (s.serving != nil) != tt.serves {
				t.Errorf("flaw %q, serves %t; want %q, %t", s.flaw, s.serving != nil, tt.want, tt.serves)
			}
		})
	}
}

func TestSpoiltAgainAndAgain(t *testing.T) {
	now := noon()
	first := after(t, now, state{}, remake)
	s := first
	for range 20 {
		s.flaw = noSecret
		s = after(t, now, s, succeed)
		if err := believe(s.trustedPEM, first.serving, "celery-hpa.n.svc", now); err != nil || !s.serving.Equal(first.serving) {
			t.Fatalf("what is served is trusted no more: %v", err)
		}
	}
	if n := len(s.trusted); n != mostTrusted {
		t.Errorf("%d authorities, want %d", n, mostTrusted)
	}
	if s = after(t, now, s, renew, forget); len(s.trusted) != 1 {
		t.Errorf("%d authorities in the end, want one", len(s.trusted))
	}
}

func FuzzDecode(f *testing.F) {
	s, _, _, err := options().next(state{}, noon(), time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.trustedPEM, s.keyPEM, s.servingPEM, s.servingKeyPEM)
	f.Fuzz(func(t *testing.T, trusted, key, serving, servingKey []byte) {
		s := decode(map[string][]byte{trustedName: trusted, signerKeyName: key, servingName: serving, servingKeyName: servingKey})
		if (s.flaw == "") != (s.serving != nil && s.signer != nil) {
			t.Errorf("flaw %q, serving %t, signer %t", s.flaw, s.serving != nil, s.signer != nil)
		}
		for range 2 { // whatever it was, it is repaired
			next, _, _, err := options().next(s, noon(), noon().Add(-time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			s = next
		}
		if s.flaw != "" {
			t.Errorf("still: %s", s.flaw)
		}
	})
}

// world is a cluster as far as certificates go. What the Secret holds reaches caBundles
// and replicas some time later, which is less than the settling time.
type world struct {
	now      time.Time
	random   *rand.Rand
	secret   state
	since    time.Time // as the leader sees it
	bundles  [3]copied
	replicas [2]copied
	changes  map[change]int
}

// copied is what somebody has of the Secret, and will have.
type copied struct {
	has, next state
	at        time.Time // of next
}

// TestNobodyIsEverRefused goes through decades, with many accidents: each replica always
// shows what each caBundle trusts.
func TestNobodyIsEverRefused(t *testing.T) {
	for seed := range uint64(4) {
		w := &world{now: noon(), random: rand.New(rand.NewPCG(seed, 0)), changes: map[change]int{}}
		w.secret = after(t, w.now, state{}, remake)
		w.spread(0)
		for end := w.now.Add(40 * 365 * day); w.now.Before(end); {
			w.pass(t)
			if t.Failed() {
				t.Fatalf("seed %d, at %s", seed, w.now)
			}
		}
		if w.changes[remake] > 0 || w.changes[renew] < 40 || w.changes[succeed] < 5 || w.changes[forget] < 5 {
			t.Errorf("seed %d: unlikely changes %v", seed, w.changes)
		}
	}
}

// pass lets some time pass: little while something is under way.
func (w *world) pass(t *testing.T) {
	step := time.Second
	if w.now.Sub(w.since) > 3*time.Minute {
		step = day / 2
	}
	w.now = w.now.Add(step)
	if w.arrive() {
		w.check(t)
	}
	since := w.since
	if w.now.Before(since) {
		since = time.Time{} // a caBundle is not written yet
	} else {
		w.accident()
	}
	s, what, _, err := options().next(w.secret, w.now, since)
	if err != nil {
		t.Fatal(err)
	}
	if what != nothing {
		w.changes[what]++
		w.secret = decode(s.encoded())
		w.spread(40 * time.Second)
		w.check(t)
	}
	if w.now.After(w.replicas[0].has.serving.NotAfter) {
		t.Error("it has ended")
	}
}

// accident is, seldom, another leader, or a Secret that is deleted or has lost its key.
func (w *world) accident() {
	switch n := w.random.IntN(4000); {
	case n < 8:
		w.since = w.now // when another leader has looked first
	case n < 9:
		w.secret.flaw = noSecret
	case n < 10:
		data := w.secret.encoded()
		delete(data, signerKeyName)
		w.secret = decode(data)
	}
}

// spread has everybody learn of the Secret within a time, the caBundles first known to the
// leader.
func (w *world) spread(within time.Duration) {
	soon := func() time.Time { return w.now.Add(time.Duration(w.random.Int64N(int64(within) + 1))) }
	w.since = w.now
	for i := range w.bundles {
		w.bundles[i] = w.bundles[i].learning(w.secret, soon())
		if w.bundles[i].at.After(w.since) {
			w.since = w.bundles[i].at
		}
	}
	for i := range w.replicas {
		w.replicas[i] = w.replicas[i].learning(w.secret, soon())
	}
	w.arrive()
}

func (c copied) learning(s state, at time.Time) copied {
	return copied{has: c.has, next: s, at: at}
}

// arrive is what happens by now.
func (w *world) arrive() (any bool) {
	for _, all := range [][]copied{w.bundles[:], w.replicas[:]} {
		for i, c := range all {
			if !c.at.IsZero() && !w.now.Before(c.at) {
				all[i], any = copied{has: c.next}, true
			}
		}
	}
	return any
}

func (w *world) check(t *testing.T) {
	for _, b := range w.bundles {
		for _, r := range w.replicas {
			if err := believe(b.has.trustedPEM, r.has.serving, "celery-hpa.n.svc", w.now); err != nil {
				t.Error(err)
			}
		}
	}
}
