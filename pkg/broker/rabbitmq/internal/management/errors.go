package management

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// RefusedError is an answer that says no, and will say no again until somebody gives
// a right.
type RefusedError struct {
	// Code is that of HTTP.
	Code int
	text string
}

// Error says what was refused, by whom, and which right is missing.
func (r *RefusedError) Error() string { return r.text }

// refused is the error of an answer with the code of a failure. What the API says
// as its reason is in rabbit_mgmt_util.erl, is_authorized.
func (c *Client) refused(code int, status, reason string) error {
	says := status
	if reason != "" {
		says += ", " + reason
	}
	text := fmt.Sprintf("the management API at %s answers %s", c.Address(), says)
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &queue.MissingRightError{Err: &RefusedError{code, text + ": " + c.missingRight(reason)}}
	case http.StatusNotFound:
		return &RefusedError{code, text + fmt.Sprintf(": it has no virtual host %q, or this is not its URL (rabbitmq.managementURL)", c.settings.VirtualHost)}
	}
	return errors.New(text)
}

// missingRight is what to do about an answer that says no.
func (c *Client) missingRight(reason string) string {
	switch reason {
	case "Not management user":
		return "the user needs the tag management: rabbitmqctl set_user_tags USER management"
	case "User not authorised to access virtual host":
		return fmt.Sprintf("the user needs a permission for the virtual host %q: rabbitmqctl set_permissions -p VHOST USER '^$' '^$' '^$'", c.settings.VirtualHost)
	}
	return "the user needs the tag management and a permission for the virtual host, and the name and password must be right (of the broker URL, or rabbitmq.management)"
}

// explain says what failed, where, why, and what to do about it.
func (c *Client) explain(err error) error {
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err // it names the whole URL and the method
	}
	hint := hint(err)
	if hint != "" {
		hint = ": " + hint
	}
	return fmt.Errorf("the management API at %s: %w%s", c.Address(), err, hint)
}

// hint is advice for the usual causes, or empty.
func hint(err error) string {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax), errors.Is(err, errReply):
		return "is this the management API of RabbitMQ?"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "the reply ends in the middle: is there a proxy that cuts it?"
	}
	return transport.Hint(err)
}

// errTooLong says that a reply was longer than anybody could mean.
var errTooLong = fmt.Errorf("the reply has more than %d MiB: list the queues of interest in spec.queues", maxReply>>20)

// limited is a body that fails after a number of bytes.
type limited struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(buffer []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.ReadCloser.Read(buffer[:min(len(buffer), l.left)])
	l.left -= n
	return n, err
}

// Close reads the little that may be left, without which the connection could not
// be used again.
func (l *limited) Close() error {
	const rest = 512
	_, _ = io.CopyN(io.Discard, l.ReadCloser, rest)
	return l.ReadCloser.Close()
}
