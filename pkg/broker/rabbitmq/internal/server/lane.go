package server

import (
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/frames"
)

// mostAtOnce bounds the questions that wait in one channel of the server.
const mostAtOnce = 1024

// lane is a channel of AMQP, in which the server answers one question after the other.
type lane struct {
	channel uint16
	// open is whether it was opened and not closed by the server since.
	open bool
	// closed is whether the server waits to hear that it is known to have closed it.
	closed bool
	// asked are the questions that are under way, by their number in the round.
	asked []int
	// depth is how many are put at once. A refusal costs those behind it, which
	// must be put again: so there are more as long as none is refused, and fewer
	// when one is.
	depth int
	// overdue is how many replies are to come to questions of rounds that are over;
	// until then nothing is asked here. Silent is the queue that the first of them
	// was about.
	overdue int
	silent  string
}

// put appends the frames of questions.
func (l *lane) put(b []byte, r *round, numbers []int) []byte {
	if len(numbers) == 0 {
		return b
	}
	b = l.confirm(b)
	if !l.open {
		b = frames.AppendOpen(b, l.channel)
		l.open = true
	}
	for _, n := range numbers {
		b = frames.AppendQuestion(b, l.channel, r.names[n])
	}
	l.asked = append(l.asked, numbers...)
	return b
}

// confirm appends that the server is known to have closed the channel, if it has.
func (l *lane) confirm(b []byte) []byte {
	if !l.closed {
		return b
	}
	l.closed = false
	return frames.AppendCloseOk(b, l.channel)
}

// take takes in a reply. It is false if it answers nothing.
func (l *lane) take(r *round, reply frames.Reply) bool {
	switch {
	case reply.Kind == frames.Opened:
		return true
	case reply.Kind == frames.Refused:
		l.refused(r, refusal(reply))
		return true
	case l.overdue > 0:
		l.overdue--
		return true
	case len(l.asked) == 0:
		return false
	}
	r.answer(l.asked[0], Answer{Ready: int64(reply.Messages), Consumers: int64(reply.Consumers)})
	if l.asked = l.asked[1:]; len(l.asked) == 0 {
		l.depth = min(2*l.depth, mostAtOnce)
	}
	return true
}

// refused takes in that the server has refused a question, and closed the channel: it
// has dropped the questions behind.
func (l *lane) refused(r *round, why error) {
	l.open, l.closed = false, true
	l.overdue = 0
	if len(l.asked) == 0 {
		return
	}
	r.answer(l.asked[0], Answer{Err: why})
	if behind := l.asked[1:]; len(behind) > 0 {
		l.depth = max(l.depth/2, 1)
		for _, n := range behind {
			r.put(n)
		}
	}
	l.asked = l.asked[:0]
}

// suspend gives up waiting for the answers to what is under way.
func (l *lane) suspend(r *round) {
	if len(l.asked) == 0 {
		return
	}
	r.answers[l.asked[0]].Err = errSilent
	l.silent, l.overdue = r.names[l.asked[0]], len(l.asked)
	l.depth = max(l.depth/2, 1) // it may be that too much was asked
	l.asked = l.asked[:0]
}
