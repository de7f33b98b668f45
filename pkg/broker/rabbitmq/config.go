package rabbitmq

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Defaults of Config.
const (
	// DefaultTimeout is that of one sample, dialling included.
	DefaultTimeout = 2 * time.Second
	// DefaultQuorumTick is RabbitMQ's own (quorum_tick_interval).
	DefaultQuorumTick = 5 * time.Second
	// DefaultMaxAge is how old the management API's last list may be.
	DefaultMaxAge = 10 * time.Second
)

// The ports of the management API where no URL is given: RabbitMQ's defaults.
const (
	managementPort    = "15672"
	managementPortTLS = "15671"
)

// Config says which broker to read and how. Everything is resolved: New reads no
// file but those of TLS.
type Config struct {
	// Ref names the broker in errors.
	Ref queue.BrokerRef
	// URL is the broker's as Celery has it, with credentials.
	URL string
	// Queues are the queues to read. None: all that the broker knows, without
	// those that Celery makes for itself.
	Queues []string
	// LoginMethod is the SASL mechanism where the URL names none (Celery's
	// broker_login_method): PLAIN, AMQPLAIN or EXTERNAL; empty means PLAIN.
	LoginMethod string

	// ManagementURL is the URL of the management API, without credentials. Empty:
	// derived from the broker's URL.
	ManagementURL string
	// ManagementUsername and ManagementPassword are the user's who asks it. Empty:
	// the user of the broker's URL.
	ManagementUsername string
	ManagementPassword string

	// CA, Cert and Key are authorities, client certificate and its key, in PEM format.
	// They go before the files of the URL. If one is set, the connection is secured
	// whatever the URL's scheme (Celery's broker_use_ssl). They are used for an https
	// management API, too.
	CA, Cert, Key []byte

	// QuorumTick is how often the broker's quorum queues count what they hold, and
	// so how old the numbers may be that the management API gives of them; 0 means
	// DefaultQuorumTick.
	QuorumTick time.Duration
	// Timeout bounds one sample; 0 means DefaultTimeout.
	Timeout time.Duration
	// MaxAge is how old the last list of the management API may be while it cannot
	// be asked; 0 means DefaultMaxAge.
	MaxAge time.Duration

	// Executing tells which tasks workers were last heard to execute; it is called
	// once for each sample and must not block. Nil: nobody tells, and a task that
	// was acknowledged early is in flight nowhere.
	Executing func() []monitor.ExecutingTask
}

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.QuorumTick <= 0 {
		c.QuorumTick = DefaultQuorumTick
	}
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultMaxAge
	}
	return c
}

func (c Config) pem() transport.PEM {
	return transport.PEM{CA: c.CA, Cert: c.Cert, Key: c.Key}
}

// endpoints reads the URL.
func (c Config) endpoints() ([]server.Endpoint, error) {
	u, err := celery.ParseBrokerURL(c.URL)
	if err != nil {
		return nil, err
	}
	if u.Transport != celery.TransportAMQP {
		return nil, fmt.Errorf("%w: a Redis broker is not read by the RabbitMQ driver", celery.ErrBrokerURL)
	}
	return server.New(u, c.pem(), c.LoginMethod)
}

// management says where the management API of a server is.
func (c Config) management(e server.Endpoint) (management.Settings, error) {
	s := management.Settings{
		URL: c.ManagementURL, VirtualHost: e.VirtualHost, Names: c.Queues,
		Username: cmp.Or(c.ManagementUsername, e.Username), Password: cmp.Or(c.ManagementPassword, e.Password),
	}
	if s.URL == "" {
		s.URL = derivedURL(e)
	}
	var err error
	s.TLS, err = c.managementTLS(s.URL, e)
	return s, err
}

// derivedURL is where the management API of a server usually is.
func derivedURL(e server.Endpoint) string {
	if e.TLS != nil {
		return "https://" + net.JoinHostPort(e.Host, managementPortTLS)
	}
	return "http://" + net.JoinHostPort(e.Host, managementPort)
}

// managementTLS is the broker's own, for the host of the management API.
func (c Config) managementTLS(raw string, e server.Endpoint) (*tls.Config, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("the URL of the management API is not one: write it like http://rabbitmq:%s", managementPort)
	}
	secure := e.TLS.Clone()
	if secure == nil {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	secure.ServerName = u.Hostname()
	return secure, nil
}
