package server

import (
	"errors"
	"fmt"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/frames"
)

// ErrUnanswered says that the server was asked about a queue in vain. It may answer
// later, and loses nothing by being asked again.
var ErrUnanswered = errors.New("the broker has not answered in time")

// errSilent is about a queue that does not answer while others do. One that is being
// mirrored does not, for example (rabbit_mirror_queue_sync.erl).
var errSilent = fmt.Errorf("%w, though about other queues: see rabbitmqctl list_queues name state", ErrUnanswered)

// round is a call of Connection.Ready.
type round struct {
	names   []string
	answers []Answer
	// doubts are queues that the server may well not have.
	doubts map[string]bool
	// sure and doubtful are the questions that are to be put.
	sure, doubtful []int
	// left is how many have no answer, heard whether the server has said anything.
	left  int
	heard bool
}

// newRound has questions about all names but those that cannot be asked about, or that
// are known to be silent.
func newRound(names []string, doubts map[string]bool, silent func(string) bool) *round {
	r := &round{names: names, answers: make([]Answer, len(names)), doubts: doubts, left: len(names)}
	for i, name := range names {
		r.answers[i].Err = ErrUnanswered // as long as there is no other
		switch {
		case name == "" || len(name) > frames.MaxName:
			r.answer(i, Answer{Err: fmt.Errorf("its name has %d bytes, a queue's has 1 to %d", len(name), frames.MaxName)})
		case silent(name):
			r.answer(i, Answer{Err: errSilent})
		default:
			r.put(i)
		}
	}
	return r
}

// put has a question put, or put again.
func (r *round) put(number int) {
	if r.doubts[r.names[number]] {
		r.doubtful = append(r.doubtful, number)
	} else {
		r.sure = append(r.sure, number)
	}
}

// next is what to put at once in a lane: some that are sure, and then a doubtful one.
func (r *round) next(most int) []int {
	n := min(most, len(r.sure))
	numbers := r.sure[:n:n]
	r.sure = r.sure[n:]
	if len(r.doubtful) > 0 {
		numbers = append(numbers, r.doubtful[0])
		r.doubtful = r.doubtful[1:]
	}
	return numbers
}

func (r *round) answer(number int, a Answer) {
	r.answers[number] = a
	r.left--
}
