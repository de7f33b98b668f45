package server

import (
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// SampleRights are what a user of Redis needs for samples, in the words of ACL
// SETUSER.
const SampleRights = "+multi +exec +llen +lindex +exists +hlen +zcard +zrange +hstrlen +hmget +scan +smembers (and +select for a database other than 0), " +
	"with read access to the keys of the queues and their priorities, unacked, unacked_index and _kombu.binding.*; with +role, a replica that has lost its primary is noticed"

// isReply reports whether the server answered, with an error of its own.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}

// IsAbort reports whether the server refused a whole transaction because it
// refused one of its commands, whose own error says why.
func IsAbort(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "EXECABORT") }

// IsRefusal reports whether the server refused this very command for lack of
// permission.
func IsRefusal(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOPERM") }

// Purpose is what the servers of a broker are asked for.
type Purpose struct {
	// Doing says it in a few words, before "broker …".
	Doing  string
	Broker queue.BrokerRef
	// Rights are what a user of Redis needs for it, in the words of ACL SETUSER.
	Rights string
}

// Explain says what failed, where, why, and what to do about it.
func (p Purpose) Explain(address string, err error) error {
	hint := Hint(err, p.Rights)
	if hint != "" {
		hint = ": " + hint
	}
	explained := fmt.Errorf("%w%s", p.Wrap(address, err), hint)
	if isMissingRight(err) {
		return &queue.MissingRightError{Err: explained}
	}
	return explained
}

// isMissingRight reports whether an error comes of a command that the user may not use.
func isMissingRight(err error) bool {
	return strings.Contains(err.Error(), "NOPERM") || errors.Is(err, errNoReply)
}

// Wrap says what failed, where and why.
func (p Purpose) Wrap(address string, err error) error {
	return fmt.Errorf("%s broker %s at %s: %w", p.Doing, p.Broker, address, err)
}

// Hint is advice for the usual causes, or empty; rights are those of a Purpose.
func Hint(err error, rights string) string {
	text := err.Error()
	advice := []struct{ sign, hint string }{
		{"WRONGPASS", "the user name or password of the broker URL is wrong"},
		{"NOAUTH", "the server wants a password: put it into the broker URL"},
		{"AUTH failed", "the user name or password of the broker URL is wrong"},
		{"NOPERM", "the user of the broker URL needs " + rights},
		{errNoReply.Error(), "the user of the broker URL needs " + rights},
		{"LOADING", "the server is still loading its data: wait"},
		{"READONLY", "the server is a replica: let the broker URL lead to the primary"},
		{"MASTERDOWN", "a replica that has lost its primary: wait for the failover"},
		{"DB index is out of range", "the server has fewer databases than the URL's path names"},
		{"max number of clients", "raise maxclients of the server"},
		{"all sentinels specified", "check the sentinels' addresses, their password, and the name of the service (master_name)"},
		{"first record does not look like a TLS handshake", "the server speaks no TLS on this port: use redis:// instead of rediss://"},
	}
	for _, a := range advice {
		if strings.Contains(text, a.sign) {
			return a.hint
		}
	}
	return transport.Hint(err)
}

// FirstCause is the error of the command for which a transaction was refused.
func FirstCause(commands []goredis.Cmder, abort error) error {
	for _, c := range commands {
		if err := c.Err(); err != nil && !IsAbort(err) {
			return err
		}
	}
	return abort
}
