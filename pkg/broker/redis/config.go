package redis

import (
	"errors"
	"fmt"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/server"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis/internal/unacked"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Defaults of Config.
const (
	// DefaultTimeout is that of one sample, dialling included.
	DefaultTimeout = 2 * time.Second
	// DefaultMaxTags is how many messages in flight are remembered one by one.
	// With that many, a sample a second takes about 15 % of a core and 40 MB
	// here, and stops a busy server for 50 ms (BenchmarkSampleOf100000Unacked,
	// times 2.5).
	DefaultMaxTags = 250_000
	// DefaultMaxFetch is how many unseen messages one sample fetches.
	DefaultMaxFetch = 25_000
)

// Config says which broker to read and how. Everything is resolved: New reads
// no file but those of TLS.
type Config struct {
	// Ref names the broker in errors.
	Ref queue.BrokerRef
	// URL is the broker's as Celery has it, with credentials.
	URL string
	// Queues are the queues to read. None: all that the broker knows.
	Queues []string

	// GlobalKeyPrefix, Separator, UnackedKey and UnackedIndexKey are Celery's
	// transport options global_keyprefix, sep, unacked_key and
	// unacked_index_key; empty means Celery's default.
	GlobalKeyPrefix string
	Separator       string
	UnackedKey      string
	UnackedIndexKey string

	// MasterName is the transport option master_name, needed with Sentinel.
	MasterName string
	// SentinelUsername and SentinelPassword are for the sentinels themselves
	// (sentinel_kwargs); the servers' are in the URL.
	SentinelUsername string
	SentinelPassword string

	// CA, Cert and Key are authorities, client certificate and its key, in PEM format.
	// They go before the files of the URL. If one is set, the connection is secured
	// whatever the URL's scheme (Celery's broker_use_ssl).
	CA, Cert, Key []byte

	// Timeout bounds one sample; 0 means DefaultTimeout.
	Timeout time.Duration
	// MaxTags bounds the messages in flight that are remembered; 0 means
	// DefaultMaxTags. With more, in-flight counts are estimated.
	MaxTags int
	// MaxFetch bounds the unseen messages fetched in one sample; 0 means
	// DefaultMaxFetch. Until all are fetched, in-flight counts are unknown.
	MaxFetch int

	// Executing returns the tasks that workers were last heard to execute. It is
	// called once for each sample, just before the server is asked, and must not
	// block. In flight is then what is held unacknowledged and what executes, each
	// task once, by its id; one without a queue may be of any. Nil: nobody knows.
	Executing func() []monitor.ExecutingTask

	// Untold has a Lookout not ask to be told of writes (CLIENT TRACKING).
	Untold bool
}

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxTags <= 0 {
		c.MaxTags = DefaultMaxTags
	}
	if c.MaxFetch <= 0 {
		c.MaxFetch = DefaultMaxFetch
	}
	return c
}

// parseURL reads the URL and checks what belongs together with it.
func (c Config) parseURL() (celery.BrokerURL, error) {
	u, err := celery.ParseBrokerURL(c.URL)
	if err != nil {
		return celery.BrokerURL{}, err
	}
	switch {
	case u.Transport == celery.TransportAMQP:
		return celery.BrokerURL{}, fmt.Errorf("%w: an AMQP broker is not read by the Redis driver", celery.ErrBrokerURL)
	case u.Transport == celery.TransportSentinel && c.MasterName == "":
		return celery.BrokerURL{}, errors.New("a sentinel URL needs the name of the monitored service (transport option master_name)")
	}
	return u, nil
}

// settings is the part of the configuration that reaching the servers needs.
func (c Config) settings(u celery.BrokerURL) server.Settings {
	return server.Settings{
		URL: u, MasterName: c.MasterName,
		SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword,
		TLS: transport.PEM{CA: c.CA, Cert: c.Cert, Key: c.Key}, Timeout: c.Timeout, Untold: c.Untold,
	}
}

// limits bounds what is remembered and fetched of the messages in flight.
func (c Config) limits() unacked.Limits {
	return unacked.Limits{Tags: c.MaxTags, Fetch: c.MaxFetch}
}
