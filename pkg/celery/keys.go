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

// Binding is the set of an exchange's bindings.
func (k Keys) Binding(exchange string) string { return k.prefix + bindingKey + exchange }

// BindingPattern is the glob that every binding table's key matches, for SCAN.
func (k Keys) BindingPattern() string {
	escape := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`)
	return escape.Replace(k.prefix) + bindingKey + "*"
}

// Exchange is the exchange whose binding table has the given key, if it is one.
func (k Keys) Exchange(key string) (string, bool) {
	return strings.CutPrefix(key, k.prefix+bindingKey)
}

// ParseBinding splits a member of a binding table.
func (k Keys) ParseBinding(member string) (Binding, error) {
	return parseBinding(member, k.separator)
}
