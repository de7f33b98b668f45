package mailbox

import "github.com/celery-hpa/celery-hpa/pkg/celery/monitor"

// answers is what has been answered to one question.
type answers struct {
	ticket string
	// missing are the nodes that have not answered.
	missing map[string]bool
	replies []monitor.ControlReply
	// budget is how many more elements are read, whatever they are.
	budget int
}

func newAnswers(ticket string, nodes []string) *answers {
	a := &answers{ticket: ticket, missing: map[string]bool{}, budget: 2*len(nodes) + 100}
	for _, node := range nodes {
		a.missing[node] = true
	}
	return a
}

// add keeps a reply if it answers the question, and is the first of its node.
func (a *answers) add(element []byte) {
	a.budget--
	reply, err := monitor.DecodeListedReply(element)
	if err != nil || reply.Ticket != a.ticket || !a.missing[reply.Node] {
		return
	}
	delete(a.missing, reply.Node)
	a.replies = append(a.replies, reply)
}

func (a *answers) isComplete() bool { return len(a.missing) == 0 }
