package simulation_test

import (
	"math"
	"time"
)

// hpa is the HorizontalPodAutoscaler controller, for the one HPA that there is.
type hpa struct {
	w    *world
	past []proposal // that stabilization still remembers
	// scaledToZero is the condition of that name: only then it computes at zero.
	scaledToZero bool
}

// proposal is a size that was computed.
type proposal struct {
	at moment
	n  int32
}

func startHPA(w *world) *hpa {
	h := &hpa{w: w}
	w.after(w.between(0, w.plan.hpaPeriod), h.sync)
	return h
}

// sync looks and scales, again and again.
func (h *hpa) sync() {
	h.w.after(h.w.plan.hpaPeriod, h.sync)
	h.look()
}

// look looks and scales once. Between its reading of the scale and its write lie those
// of the metrics.
func (h *hpa) look() {
	now, spec := h.w.cluster.size, h.w.plan.spec
	if now.replicas == 0 && (spec.least > 0 || !h.scaledToZero) {
		return // ScalingDisabled
	}
	want, isKnown := h.compute(now)
	if !isKnown {
		return
	}
	h.w.after(h.w.mostly(time.Millisecond, 20*time.Millisecond, 500*time.Millisecond), func() { h.scale(now, want) })
}

// compute is the arithmetic of the HPA for metrics of AverageValue, and its bounds.
func (h *hpa) compute(now size) (int32, bool) {
	r := h.w.anyReplica()
	if r == nil {
		return 0, false
	}
	var largest int32
	unknown, metrics := 0, r.metrics()
	for _, m := range metrics {
		if m.err != nil {
			unknown++
			continue
		}
		n := int32(math.Ceil(float64(m.value) / float64(m.target)))
		if now.replicas > 0 && now.pods > 0 {
			if ratio := float64(m.value) / (float64(m.target) * float64(now.pods)); math.Abs(ratio-1) <= 0.1 {
				n = now.replicas
			}
		}
		largest = max(largest, n)
	}
	if unknown == len(metrics) || unknown > 0 && largest < now.replicas {
		h.w.marks[blindSyncs]++
		return 0, false
	}
	return h.bound(now, largest), true
}

// bound keeps to the HPA's limits, and to the largest size of the latest time.
func (h *hpa) bound(now size, n int32) int32 {
	spec := h.w.plan.spec
	h.past = append(h.past, proposal{h.w.now, n})
	for len(h.past) > 0 && h.w.now-h.past[0].at > h.w.plan.stabilization {
		h.past = h.past[1:]
	}
	highest := n
	for _, p := range h.past {
		highest = max(highest, p.n)
	}
	if n < now.replicas {
		n = min(highest, now.replicas)
	}
	n = min(n, max(now.replicas*2, now.replicas+4))
	return min(max(n, spec.least), spec.most)
}

// scale writes. After a conflict the HPA writes the size that it had computed before
// over the newer one.
func (h *hpa) scale(seen size, want int32) {
	if want == seen.replicas {
		return
	}
	h.w.say("the HPA wants %d instead of %d", want, seen.replicas)
	h.w.cluster.write(request{by: theHPA, version: seen.version, to: want}, func(a answer, now size) {
		switch a {
		case conflict:
			h.w.marks[forced]++
			h.w.after(h.w.between(time.Millisecond, 20*time.Millisecond), func() {
				now := h.w.cluster.size
				if now.replicas == 0 && want > 0 {
					h.w.marks[forcedOverZero]++
				}
				h.w.cluster.write(request{by: theHPA, version: now.version, to: want}, func(answer, size) {})
			})
		case accepted:
			h.scaledToZero = want == 0
		case refused, failed:
		}
	})
}
