package simulation_test

import "time"

// spec is what the HPA of the target says.
type spec struct {
	least, most int32
	window      time.Duration
	paused      bool
}

// edit changes the HPA, of which the replicas hear later.
func (w *world) edit(change func(*spec)) {
	change(&w.plan.spec)
	w.say("the HPA now says %+v", w.plan.spec)
	now := w.plan.spec
	for _, r := range w.replicas {
		r.informer.spec(now)
	}
}

// somebodyScales is kubectl scale.
func (w *world) somebodyScales(to int32) {
	w.say("somebody scales to %d", to)
	w.cluster.write(request{by: somebody, to: to}, func(answer, size) {})
}

// interfere has people do one of the things that they do.
func (w *world) interfere() {
	w.marks[peopleActed]++
	switch w.rng.IntN(5) {
	case 0:
		w.somebodyScales(0)
		if w.chance(0.5) { // a restart
			w.after(w.between(100*time.Millisecond, 5*time.Second), func() { w.somebodyScales(1) })
		}
	case 1:
		w.somebodyScales(1 + int32(w.rng.IntN(int(w.plan.spec.most))))
	case 2, 3:
		w.marks[pauses]++
		w.edit(func(s *spec) { s.paused = true })
		w.after(w.between(time.Second, 20*time.Second), func() { w.edit(func(s *spec) { s.paused = false }) })
	case 4:
		if w.plan.spec.least > 0 {
			w.edit(func(s *spec) { s.least = 3 - s.least })
		}
	}
}
