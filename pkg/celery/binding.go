package celery

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// maxRoutingKey bounds the routing keys that are made into patterns, in bytes.
// AMQP 0-9-1 allows 255; Redis would take any.
const maxRoutingKey = 4096

// ErrBinding is wrapped by every error of Keys.ParseBinding.
var ErrBinding = errors.New("binding")

// Binding says that messages of an exchange go to a queue if their routing key
// matches. It is safe for concurrent use.
type Binding struct {
	// RoutingKey is what the queue was bound with: a key, or words with the
	// wildcards * and # in a topic exchange.
	RoutingKey string
	// Queue is the queue's name, never empty.
	Queue string

	pattern *regexp.Regexp // set in topic exchanges
}

// parseBinding splits "routing key SEP pattern SEP queue" (Channel._queue_bind).
//
// The stored pattern is a regular expression for Python that anybody with
// access to the broker may have written: it only tells that the exchange is of
// type topic, and the pattern is built anew from the routing key.
func parseBinding(member, separator string) (Binding, error) {
	parts := strings.Split(member, separator)
	if len(parts) != 3 {
		return Binding{}, fmt.Errorf("%w has %d parts instead of routing key, pattern and queue: is the separator the one that Celery uses (transport option sep)?", ErrBinding, len(parts))
	}
	b := Binding{RoutingKey: parts[0], Queue: parts[2]}
	if b.Queue == "" {
		return Binding{}, fmt.Errorf("%w names no queue", ErrBinding)
	}
	if parts[1] == "" {
		return b, nil
	}
	if len(b.RoutingKey) > maxRoutingKey {
		return Binding{}, fmt.Errorf("%w has a routing key of %d bytes, more than %d", ErrBinding, len(b.RoutingKey), maxRoutingKey)
	}
	var err error
	if b.pattern, err = topicPattern(b.RoutingKey); err != nil {
		return Binding{}, fmt.Errorf("%w of queue %q: %w", ErrBinding, b.Queue, err)
	}
	return b, nil
}

// topicPattern translates as TopicExchange.key_to_pattern does
// (kombu/transport/virtual/exchange.py): a word * is anything that ends in
// another character than a dot (dots before are matched too, unlike AMQP's), a
// word # is anything, and within a longer word * keeps its meaning in regular
// expressions. As with Python's $, a newline may follow.
func topicPattern(routingKey string) (*regexp.Regexp, error) {
	words := strings.Split(routingKey, ".")
	for i, word := range words {
		switch word {
		case "*":
			words[i] = `.*?[^.]`
		case "#":
			words[i] = `.*?`
		default:
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), `\*`, `*`)
		}
	}
	return regexp.Compile(`\A` + strings.Join(words, `\.`) + `\n?\z`)
}

// Matches reports whether a message with the routing key goes to the queue.
//
// The table does not tell the type of its exchange. A binding without key and
// pattern is taken for one of a fanout exchange and matches everything.
func (b Binding) Matches(routingKey string) bool {
	if b.pattern != nil {
		return b.pattern.MatchString(routingKey)
	}
	return b.RoutingKey == "" || b.RoutingKey == routingKey
}
