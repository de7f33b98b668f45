package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// clientName is what CLIENT LIST shows of our connections.
const clientName = "celery-hpa"

// endpoint is one server, or one service behind sentinels.
type endpoint struct {
	// address is for errors: it holds no credential.
	address string
	client  *goredis.Client
}

// newEndpoints makes the clients. It does not connect.
func newEndpoints(cfg Config, u celery.BrokerURL) ([]endpoint, error) {
	if u.Transport == celery.TransportSentinel {
		e, err := newSentinel(cfg, u)
		return []endpoint{e}, err
	}
	var endpoints []endpoint
	for _, server := range u.Endpoints {
		secure, err := cfg.tlsConfig(server)
		if err != nil {
			return nil, errors.Join(err, closeAll(endpoints))
		}
		endpoints = append(endpoints, endpoint{server.Address(), newClient(cfg, server, secure)})
	}
	return endpoints, nil
}

// newClient connects at the first command, with one connection: samples are
// taken one at a time. Nothing is retried here: the sampler does that, and says
// so.
func newClient(cfg Config, server celery.Endpoint, secure *tls.Config) *goredis.Client {
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
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, PoolTimeout: cfg.Timeout,
		ContextTimeoutEnabled: true,
	})
}

// newSentinel follows the primary that the sentinels name. As in kombu, the
// first URL's user, password and database are those of the servers.
func newSentinel(cfg Config, u celery.BrokerURL) (endpoint, error) {
	first := u.Endpoints[0]
	secure, err := cfg.tlsConfig(first)
	if err != nil {
		return endpoint{}, err
	}
	if secure != nil {
		secure.ServerName = "" // each sentinel and server has its own
	}
	var addresses []string
	for _, server := range u.Endpoints {
		addresses = append(addresses, server.Address())
	}
	client := goredis.NewFailoverClient(&goredis.FailoverOptions{
		MasterName: cfg.MasterName, SentinelAddrs: addresses, TLSConfig: secure,
		SentinelUsername: cfg.SentinelUsername, SentinelPassword: cfg.SentinelPassword,
		Username: first.Username, Password: first.Password, DB: first.DB,
		OnConnect: setName, DisableIdentity: true, Protocol: 2,
		PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, PoolTimeout: cfg.Timeout,
		ContextTimeoutEnabled: true,
	})
	return endpoint{fmt.Sprintf("%s of sentinels %s", cfg.MasterName, u), client}, nil
}

// exec runs the commands in one exchange: as one transaction if atomic. The
// error is that of the exchange, and nil only if every command has its own
// reply, be it an error.
func (e endpoint) exec(ctx context.Context, atomic bool, commands []goredis.Cmder) error {
	pipe := e.client.Pipeline()
	if atomic {
		pipe = e.client.TxPipeline()
	}
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
	if isReply(err) && !isAbort(err) {
		return nil // the first error of the commands
	}
	return err
}

// errNoReply is the error of a command until its reply is read. Without it, a
// command that was never sent (because the log-in failed, say) would look like
// one that found nothing.
var errNoReply = errors.New("no reply was read")

// setName tells the server who we are. A user may lack the permission; then the
// connection has no name. (Options.ClientName would fail the connection.)
func setName(ctx context.Context, conn *goredis.Conn) error {
	if err := conn.ClientSetName(ctx, clientName).Err(); err != nil && !isReply(err) {
		return err
	}
	return nil
}

// closeAll closes the clients and waits for nothing.
func closeAll(endpoints []endpoint) error {
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.client.Close())
	}
	return errors.Join(errs...)
}
