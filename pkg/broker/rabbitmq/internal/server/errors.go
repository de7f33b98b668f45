package server

import (
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Hint is advice for the usual causes, or empty.
func Hint(err error) string {
	advice := []struct{ sign, hint string }{
		{"limit (", "the broker takes no more connections of this user or virtual host, or at all: raise the limit"},
		{"queue limit", "raise the limit: rabbitmqctl set_vhost_limits"},
		{"vhost", "check the virtual host, which is the path of the broker URL (a slash in it is written %2F), and give the user a permission for it: rabbitmqctl set_permissions -p VHOST USER '^$' '^$' '^$'"},
		{"Login was refused", "the user name or password of the broker URL is wrong"},
		{"username or password", "the user name or password of the broker URL is wrong"},
		{"can only connect via localhost", "the user guest may log in from the broker's own machine alone: use another"},
		{"SASL could not negotiate", "the broker does not offer the login method (login_method in the URL, or rabbitmq.loginMethod)"},
		{"first record does not look like a TLS handshake", "the server speaks no TLS on this port: use amqp:// instead of amqps://"},
		{"CONNECTION_FORCED", "the broker is being stopped, or somebody closed the connection"},
		{"INTERNAL_ERROR", "see the broker's log"},
	}
	for _, a := range advice {
		if strings.Contains(err.Error(), a.sign) {
			return a.hint
		}
	}
	if hint := transport.Hint(err); hint != "" {
		return hint
	}
	if isClosed(err) {
		return "the broker closed the connection: is it being stopped, or does it want TLS (amqps://)?"
	}
	return ""
}

// isClosed reports whether the client library found its connection closed
// without having been told why.
func isClosed(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && !e.Server
}

// refused says what the server has refused, if it did, and whether that was for
// want of a permission. It is for questions on a channel: a log-in that is refused
// has the same code.
func refused(err error, format string, what ...any) error {
	if err == nil {
		return nil
	}
	doing := fmt.Sprintf(format, what...)
	if refusal, ok := errors.AsType[*amqp.Error](err); ok && refusal.Server && refusal.Code == amqp.AccessRefused {
		return &queue.MissingRightError{Err: fmt.Errorf("%s: %w: %w", doing, ErrForbidden, err)}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isNoExchange tells an exchange that does not exist from a queue that does not
// (rabbit_misc.erl, not_found/1).
func isNoExchange(err *amqp.Error) bool {
	return err.Code == amqp.NotFound && strings.Contains(err.Reason, "no exchange '")
}
