package simulation_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// user is who writes a scale.
type user int

const (
	nobody user = iota
	us
	theHPA
	somebody // a person
)

// size is the scale of the target at one moment.
type size struct {
	replicas int32
	pods     int32 // status.replicas
	version  int
}

// cluster is the API server, and what creates and ends pods.
type cluster struct {
	w        *world
	size     size
	pods     []*pod // that exist, ending ones included
	named    int
	writer   user  // of spec.replicas
	zeroLook *look // on which the latest step to zero stands, if we answer for it
	settling bool  // whether the controller is about to look
}

// pod has a worker once it has started.
type pod struct {
	name        string
	worker      *worker
	ready       bool
	terminating bool
	gone        bool
	// zeroLook is the look on which the step to zero stands that ended it, nil if it
	// was ended by something else.
	zeroLook *look
}

func newCluster(w *world, replicas int32) *cluster {
	c := &cluster{w: w, size: size{replicas: replicas, version: 1}}
	c.reconcile()
	return c
}

// request asks for a new size.
type request struct {
	by      user
	replica *replica // of celery-hpa, where it is us
	version int      // that must still hold; 0 for any
	to      int32
	look    *look // of the machine itself
}

// answer is what becomes of a request.
type answer int

const (
	accepted answer = iota
	conflict
	refused
	failed
)

// write asks the API server for a new size. It answers later, or never.
func (c *cluster) write(q request, answered func(answer, size)) {
	f := c.w.faults()
	if c.w.chance(f.lostRequest) {
		c.w.marks[lostRequests]++
		return
	}
	there, back := c.writeDelay(), c.w.between(time.Millisecond, 5*time.Millisecond)
	isLost := c.w.chance(f.lostAnswer)
	if isLost {
		c.w.marks[lostAnswers]++
	}
	c.w.after(there, func() {
		c.admit(q, func(a answer) {
			size := c.size
			if !isLost {
				c.w.after(back, func() { answered(a, size) })
			}
		})
	})
}

func (c *cluster) writeDelay() time.Duration {
	if c.w.chance(c.w.faults().slowWrite) {
		c.w.marks[slowWrites]++
		return c.w.between(50*time.Millisecond, 2*time.Second)
	}
	return c.w.between(time.Millisecond, 10*time.Millisecond)
}

// admit asks the webhook where it is asked, and commits what it lets pass.
func (c *cluster) admit(q request, answered func(answer)) {
	isToZero := c.size.replicas > 0 && q.to == 0
	switch {
	case q.version != 0 && q.version != c.size.version:
		c.w.marks[conflicts]++
		answered(conflict)
	case isToZero && c.w.plan.webhook && (q.by == us || q.by == theHPA):
		c.w.askWebhook(func(l *look, isAllowed bool) {
			if !isAllowed {
				c.w.marks[refusals]++
				answered(refused)
				return
			}
			q.look = l
			c.w.after(c.w.between(0, 5*time.Millisecond), func() { answered(c.commit(q)) })
		})
	default:
		answered(c.commit(q))
	}
}

// commit writes, unless somebody was faster.
func (c *cluster) commit(q request) answer {
	if q.version != 0 && q.version != c.size.version {
		c.w.marks[conflicts]++
		return conflict
	}
	from := c.size.replicas
	if from == q.to {
		return accepted
	}
	c.w.judge.commits(q, from)
	c.size.replicas = q.to
	c.writer, c.zeroLook = q.by, nil
	if q.to == 0 {
		c.zeroLook = q.look
		c.w.temptation(0.3)
	}
	c.changed()
	c.settle()
	return accepted
}

// changed tells everybody who watches.
func (c *cluster) changed() {
	c.size.version++
	now := c.size
	for _, r := range c.w.replicas {
		r.informer.size(now)
	}
}

// settle has the controller look, soon.
func (c *cluster) settle() {
	if c.settling {
		return
	}
	c.settling = true
	c.w.after(c.w.mostly(2*time.Millisecond, 30*time.Millisecond, 300*time.Millisecond), func() {
		c.settling = false
		c.reconcile()
	})
}

// reconcile creates and ends pods until there are as many as wanted.
func (c *cluster) reconcile() {
	var live []*pod
	for _, p := range c.pods {
		if !p.terminating {
			live = append(live, p)
		}
	}
	for n := len(live); n < int(c.size.replicas); n++ {
		c.create()
	}
	slices.SortStableFunc(live, func(a, b *pod) int { return cmp.Compare(rank(a), rank(b)) })
	for n := len(live); n > int(c.size.replicas); n-- {
		c.delete(live[len(live)-n], c.zeroLook)
	}
	if now := max(c.size.replicas, 0); now != c.size.pods {
		c.size.pods = now
		c.changed()
	}
}

// rank orders pods by who goes first.
func rank(p *pod) int {
	if p.ready {
		return 1
	}
	return 0
}

func (c *cluster) create() {
	c.named++
	p := &pod{name: fmt.Sprintf("worker-%d", c.named)}
	c.pods = append(c.pods, p)
	c.podChanged(p)
	start := c.w.mostly(c.w.plan.startLeast, c.w.plan.startMost, 20*time.Second)
	c.w.after(start, func() {
		if !p.terminating && !p.gone {
			p.worker = startWorker(c.w, p)
		}
	})
	// Without a readiness probe a pod is ready before its worker consumes; with one, after.
	c.w.after(max(0, start+c.w.between(-500*time.Millisecond, 3*time.Second)), func() {
		p.ready = true
		c.podChanged(p)
	})
}

// delete ends a pod. The kubelet hears of it a little later.
func (c *cluster) delete(p *pod, because *look) {
	p.terminating, p.zeroLook = true, because
	c.podChanged(p)
	c.w.after(c.w.mostly(time.Millisecond, 50*time.Millisecond, 500*time.Millisecond), func() {
		if p.worker != nil {
			p.worker.terminate()
			return
		}
		c.ended(p)
	})
}

// ended takes away a pod whose worker has ended. It is replaced where it should not have.
func (c *cluster) ended(p *pod) {
	if p.gone {
		return
	}
	p.gone, p.terminating = true, true
	c.pods = slices.DeleteFunc(c.pods, func(other *pod) bool { return other == p })
	c.podChanged(p)
	c.settle()
}

// podChanged tells everybody who watches.
func (c *cluster) podChanged(p *pod) {
	seen := podView{name: p.name, ready: p.ready, terminating: p.terminating, gone: p.gone}
	for _, r := range c.w.replicas {
		r.informer.pod(seen)
	}
}
