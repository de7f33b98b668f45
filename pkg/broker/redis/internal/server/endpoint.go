package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// clientName is what CLIENT LIST shows of our connections.
const clientName = "celery-hpa"

// Settings say how to reach the servers of a broker.
type Settings struct {
	// URL is of the transport redis or sentinel.
	URL celery.BrokerURL
	// MasterName, SentinelUsername and SentinelPassword are for Sentinel alone.
	MasterName, SentinelUsername, SentinelPassword string
	// TLS files go before those of the URL; if one is set, the connection is
	// secured.
	TLS transport.PEM
	// Timeout bounds each dial, read and write.
	Timeout time.Duration
	// Untold has Track not ask to be told of writes.
	Untold bool
}

// Endpoint is one server, or one service behind sentinels. It is safe for
// concurrent use.
type Endpoint struct {
	// Address is for errors: it holds no credential.
	Address string
	// DB is the number of the database that is in use.
	DB      int
	client  *goredis.Client
	timeout time.Duration
	untold  bool
}

// New makes the endpoints of a URL, to be tried in turn. It reads the TLS files
// and does not connect.
func New(s Settings) ([]Endpoint, error) {
	u := s.URL
	if u.Transport == celery.TransportSentinel {
		e, err := newSentinel(s)
		return []Endpoint{e}, err
	}
	var endpoints []Endpoint
	for _, server := range u.Endpoints {
		secure, err := s.TLS.TLSConfig(server)
		if err != nil {
			return nil, errors.Join(err, CloseAll(endpoints))
		}
		endpoints = append(endpoints, Endpoint{server.Address(), server.DB, newClient(s, server, secure), s.Timeout, s.Untold})
	}
	return endpoints, nil
}

// bufferSize is that of a connection, in bytes, for each direction. The library's own, 128
// KiB for transactions, are what thousands of brokers take most of their memory for.
const bufferSize = 16 << 10

// newClient connects at the first command, with one connection: samples are
// taken one at a time. Nothing is retried here: the sampler does that, and says
// so.
func newClient(s Settings, server celery.Endpoint, secure *tls.Config) *goredis.Client {
	network := "tcp"
	if server.SocketPath != "" {
		network = "unix"
	}
	return goredis.NewClient(&goredis.Options{
		Network: network, Addr: server.Address(), TLSConfig: secure,
		Username: server.Username, Password: server.Password, DB: server.DB,
		OnConnect: setName, DisableIdentity: true, Protocol: 2,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		PoolSize:                 1, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: s.Timeout, ReadTimeout: s.Timeout, WriteTimeout: s.Timeout, PoolTimeout: s.Timeout,
		ContextTimeoutEnabled: true,
		ReadBufferSize:        bufferSize, WriteBufferSize: bufferSize,
		PipelineReadBufferSize: bufferSize, PipelineWriteBufferSize: bufferSize,
	})
}

// newSentinel follows the primary that the sentinels name. As in kombu, the
// first URL's user, password and database are those of the servers.
func newSentinel(s Settings) (Endpoint, error) {
	u := s.URL
	first := u.Endpoints[0]
	secure, err := s.TLS.TLSConfig(first)
	if err != nil {
		return Endpoint{}, err
	}
	if secure != nil {
		secure.ServerName = "" // each sentinel and server has its own
	}
	var addresses []string
	for _, server := range u.Endpoints {
		addresses = append(addresses, server.Address())
	}
	client := goredis.NewFailoverClient(&goredis.FailoverOptions{
		MasterName: s.MasterName, SentinelAddrs: addresses, TLSConfig: secure,
		SentinelUsername: s.SentinelUsername, SentinelPassword: s.SentinelPassword,
		Username: first.Username, Password: first.Password, DB: first.DB,
		OnConnect: setName, DisableIdentity: true, Protocol: 2,
		PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: s.Timeout, ReadTimeout: s.Timeout, WriteTimeout: s.Timeout, PoolTimeout: s.Timeout,
		ContextTimeoutEnabled: true,
		ReadBufferSize:        bufferSize, WriteBufferSize: bufferSize,
		PipelineReadBufferSize: bufferSize, PipelineWriteBufferSize: bufferSize,
	})
	return Endpoint{fmt.Sprintf("%s of sentinels %s", s.MasterName, u), first.DB, client, s.Timeout, s.Untold}, nil
}

// Exec runs the commands in one exchange: as one transaction if atomic. The
// error is that of the exchange, and nil only if every command has its own
// reply, be it an error.
func (e Endpoint) Exec(ctx context.Context, atomic bool, commands []goredis.Cmder) error {
	if atomic {
		return exec(ctx, e.client.TxPipeline(), commands)
	}
	return exec(ctx, e.client.Pipeline(), commands)
}

// exec runs the commands through a pipeline; see Endpoint.Exec.
func exec(ctx context.Context, pipe goredis.Pipeliner, commands []goredis.Cmder) error {
	for _, c := range commands {
		c.SetErr(errNoReply) // some are used again for each sample
	}
	if err := pipe.BatchProcess(ctx, commands...); err != nil {
		return err
	}
	_, err := pipe.Exec(ctx)
	for _, c := range commands {
		if errors.Is(c.Err(), errNoReply) {
			return cmp.Or(err, errNoReply)
		}
	}
	if isReply(err) && !IsAbort(err) {
		return nil // the first error of the commands
	}
	return err
}

// errNoReply is the error of a command until its reply is read. Without it, a
// command that was never sent (because the log-in failed, say) would look like
// one that found nothing.
var errNoReply = errors.New("no reply was read, as happens to a user who may not EXEC")

// DiscardClientLog silences the Redis client library for the whole process: it
// writes to standard error what its errors say as well. To be called once,
// before the first connection.
func DiscardClientLog() { goredis.SetLogger(discard{}) }

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// setName tells the server who we are. A user may lack the permission; then the
// connection has no name. (Options.ClientName would fail the connection.)
func setName(ctx context.Context, conn *goredis.Conn) error {
	if err := conn.ClientSetName(ctx, clientName).Err(); err != nil && !isReply(err) {
		return err
	}
	return nil
}

// CloseAll closes the clients and waits for nothing.
func CloseAll(endpoints []Endpoint) error {
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.client.Close())
	}
	return errors.Join(errs...)
}
