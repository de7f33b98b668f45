package drain

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// hold is for how long a pod's protection stays as it is before it is taken off: a
// worker that is idle between two tasks is not written about twice. Node autoscalers
// wait for minutes before they remove a node.
const hold = 30 * time.Second

// protection is an annotation that protects a pod, with the value that does.
type protection struct{ key, value string }

func protections() []protection {
	return []protection{
		{v1alpha1.AnnotationSafeToEvict, "false"},
		{v1alpha1.AnnotationDoNotDisrupt, "true"},
	}
}

// The urgency of steps, the most urgent first.
const (
	protectBusy = iota
	protectUnknown
	release
)

// step is a change of a pod's protection.
type step struct {
	change
	urgency int
}

// mark is whether a pod was protected by us, and since when it is as it is.
type mark struct {
	protected bool
	since     time.Time
}

// history remembers the marks of pods, as of the latest look.
type history map[types.UID]mark

// look takes note of how a pod is now. What was never looked at before counts as
// having changed just now.
func (h history) look(before history, m fleet.Member, now time.Time) mark {
	_, protected := m.Annotations[v1alpha1.AnnotationNodeProtectionNote]
	latest, known := before[m.UID]
	if !known || latest.protected != protected {
		latest = mark{protected: protected, since: now}
	}
	h[m.UID] = latest
	return latest
}

// steps are the changes of a fleet's protection that are due now: busy pods are
// protected at once if the fleet is wanted to be, all others released once they have
// been as they are for long enough. What is found of the pods goes into after.
func steps(f fleet.Fleet, wanted bool, before, after history, now time.Time) []step {
	var due []step
	for _, m := range f.Members {
		if m.Terminating {
			continue
		}
		latest := after.look(before, m, now)
		switch {
		case wanted && m.State.IsBusy():
			if c, differs := protect(f, m); differs {
				due = append(due, step{c, urgencyOf(m.State)})
			}
		case latest.protected && now.Sub(latest.since) >= hold:
			due = append(due, step{unprotect(f, m), release})
		}
	}
	return due
}

func urgencyOf(s fleet.State) int {
	if s == fleet.Unknown {
		return protectUnknown
	}
	return protectBusy
}

// sortByUrgency puts what keeps tasks alive first.
func sortByUrgency(due []step) {
	slices.SortStableFunc(due, func(a, b step) int { return cmp.Compare(a.urgency, b.urgency) })
}

// protect is the change that gives a pod those protections that nobody else has
// decided about, and whether the pod lacks any of it.
func protect(f fleet.Fleet, m fleet.Member) (change, bool) {
	c, differs := newChange(f, m), false
	var ours []string
	for _, p := range protections() {
		present, decided := m.Annotations[p.key]
		if decided && !wrote(m, p) {
			continue
		}
		ours = append(ours, p.key)
		c.put(p.key, p.value)
		differs = differs || present != p.value
	}
	if len(ours) == 0 {
		return change{}, false
	}
	note := strings.Join(ours, ",")
	c.put(v1alpha1.AnnotationNodeProtectionNote, note)
	return c, differs || m.Annotations[v1alpha1.AnnotationNodeProtectionNote] != note
}

// unprotect is the change that takes off what protect has put on, and nothing else.
func unprotect(f fleet.Fleet, m fleet.Member) change {
	c := newChange(f, m)
	c.remove(v1alpha1.AnnotationNodeProtectionNote)
	for _, p := range protections() {
		if wrote(m, p) {
			c.remove(p.key)
		}
	}
	return c
}

// wrote tells whether celery-hpa has written a protection, and nobody another value
// since then.
func wrote(m fleet.Member, p protection) bool {
	ours := strings.Split(m.Annotations[v1alpha1.AnnotationNodeProtectionNote], ",")
	return slices.Contains(ours, p.key) && m.Annotations[p.key] == p.value
}
