package celery

import (
	"strconv"
	"strings"
)

// Defaults of kombu's Redis transport (kombu/transport/redis.py, class
// Channel). Each can be renamed by a transport option.
const (
	// DefaultSeparator stands between a queue and a priority, and between the
	// three parts of a binding; option sep.
	DefaultSeparator = "\x06\x16"
	// DefaultUnackedKey is the hash of the messages that workers hold, by
	// delivery tag; option unacked_key.
	DefaultUnackedKey = "unacked"
	// DefaultUnackedIndexKey is the sorted set of the same delivery tags by the
	// time of their pickup; option unacked_index_key.
	DefaultUnackedIndexKey = "unacked_index"
)

// MaxPriority is the highest priority of a message: kombu clamps priorities to
// 0–9 (Channel.priority), so the bare name of a queue and the suffixes 1 to 9
// cover every setting of priority_steps.
const MaxPriority = 9

// bindingKey begins the key of every binding table (Channel.keyprefix_queue).
const bindingKey = "_kombu.binding."

// RepliesPrefix begins the names of the lists in which workers on Redis put their
// replies to celery-hpa's questions.
const RepliesPrefix = OwnQueuePrefix + "replies."

// Keys names the keys of one Redis broker. Make it with NewKeys.
type Keys struct {
	prefix, separator string
	// Unacked and UnackedIndex are whole key names, prefix included.
	Unacked, UnackedIndex string
}

// NewKeys resolves the transport options global_keyprefix, sep, unacked_key and
// unacked_index_key; an empty one has its default.
func NewKeys(prefix, separator, unacked, unackedIndex string) Keys {
	return Keys{
		prefix:       prefix,
		separator:    orDefault(separator, DefaultSeparator),
		Unacked:      prefix + orDefault(unacked, DefaultUnackedKey),
		UnackedIndex: prefix + orDefault(unackedIndex, DefaultUnackedIndexKey),
	}
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// Queue is the list of a queue's messages at a priority from 0 to MaxPriority.
// Priority 0 is the bare name (Channel._q_for_pri).
func (k Keys) Queue(queue string, priority int) string {
	if priority == 0 {
		return k.prefix + queue
	}
	return k.prefix + queue + k.separator + strconv.Itoa(priority)
}

// QueuesOf are the queues of which a list may be, by its key: where a name ends like
// a priority, that of the whole name as well. There is none for a key without the
// prefix.
func (k Keys) QueuesOf(key string) []string {
	name, ok := strings.CutPrefix(key, k.prefix)
	if !ok {
		return nil
	}
	queues := []string{name}
	if last := len(name) - 1; last >= 0 && name[last] >= '1' && name[last] <= '0'+MaxPriority {
		if queue, ok := strings.CutSuffix(name[:last], k.separator); ok {
			queues = append(queues, queue)
		}
	}
	return queues
}

// Binding is the set of an exchange's bindings.
func (k Keys) Binding(exchange string) string { return k.prefix + bindingKey + exchange }

// BindingPattern is the glob that every binding table's key matches, for SCAN.
func (k Keys) BindingPattern() string { return EscapeGlob(k.prefix) + bindingKey + "*" }

// EscapeGlob returns the glob of Redis that a name alone matches.
func EscapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(name)
}

// EventPatterns are the globs of the channels in which workers speak of themselves,
// for PSUBSCRIBE; the same event may come through each of them. A user of Redis
// needs each of them, to the letter, as a channel rule (ACL SETUSER with & before it).
func (k Keys) EventPatterns(transport Transport, db int) []string {
	patterns := k.channels(transport, db, EventExchange)
	for i, channel := range patterns {
		patterns[i] = EscapeGlob(channel) + "/worker.*"
	}
	return patterns
}

// ControlChannels are the channels in which workers hear remote control; a worker
// hears one of them, or all, and then takes the same message once.
func (k Keys) ControlChannels(transport Transport, db int) []string {
	return k.channels(transport, db, ControlExchange)
}

// channels are those of a fanout exchange (Channel._get_publish_topic, _put_fanout;
// the prefix is PrefixedStrictRedis's). Behind Sentinel, kombu before 5.4 forgot to
// fill in the database and used the name with braces; later ones do so, too, if
// they are told (option sentinel_fanout_compat, SentinelChannel._get_publish_topics).
func (k Keys) channels(transport Transport, db int, exchange string) []string {
	channels := []string{k.prefix + "/" + strconv.Itoa(db) + "." + exchange}
	if transport == TransportSentinel {
		channels = append(channels, k.prefix+"/{db}."+exchange)
	}
	return channels
}

// Exchange is the exchange whose binding table has the given key, if it is one.
func (k Keys) Exchange(key string) (string, bool) {
	return strings.CutPrefix(key, k.prefix+bindingKey)
}

// ParseBinding splits a member of a binding table.
func (k Keys) ParseBinding(member string) (Binding, error) {
	return parseBinding(member, k.separator)
}
