package workers

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// rights are patterns of the names of queues and exchanges that a user may declare,
// write to and read from, in the words of rabbitmqctl set_permissions.
type rights struct {
	configure, write, read string
}

// rightsToListen are the least for hearing workers: to declare a queue takes
// configure, to bind it write on the queue and read on the exchange, to consume read.
func rightsToListen() rights {
	return rights{configure: only(ownQueues()), write: only(ownQueues()), read: only(ownQueues(), celery.EventExchange+"$")}
}

// rightsToAsk are the least for asking workers, with those for hearing them.
func rightsToAsk() rights {
	r := rightsToListen()
	r.write = only(ownQueues(), regexp.QuoteMeta(celery.ControlExchange)+"$")
	return r
}

// ownQueues matches the beginning of our queues' names.
func ownQueues() string { return regexp.QuoteMeta(celery.OwnQueuePrefix) }

// only matches names that begin with one of the patterns.
func only(patterns ...string) string {
	if len(patterns) == 1 {
		return "^" + patterns[0]
	}
	return "^(" + strings.Join(patterns, "|") + ")"
}

// hint is advice for an error of something that needs these rights on a server, empty
// if there is none.
func (r rights) hint(e server.Endpoint, err error) string {
	if errors.Is(err, server.ErrForbidden) {
		return r.advise(e, err)
	}
	return server.Hint(err)
}

// advise says how a user gets what it lacks.
func (r rights) advise(e server.Endpoint, lacking error) string {
	where := fmt.Sprintf("-p %s %s", quoted(e.VirtualHost), quoted(cmp.Or(e.Username, "USER")))
	if strings.Contains(lacking.Error(), "access to topic") {
		return fmt.Sprintf("permit the topic, too: rabbitmqctl set_topic_permissions %s %s '^$' %s",
			where, celery.EventExchange, quoted(only("worker"+regexp.QuoteMeta("."))))
	}
	return fmt.Sprintf("give it, besides what else it needs: rabbitmqctl set_permissions %s %s %s %s",
		where, quoted(r.configure), quoted(r.write), quoted(r.read))
}

// quoted makes a text one word for a shell.
func quoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
