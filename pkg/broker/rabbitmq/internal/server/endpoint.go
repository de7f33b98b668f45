package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/internal/transport"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/frames"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

const (
	// connectionName is what the management UI shows of a driver's connection.
	connectionName = "celery-hpa"
	// heartbeat is how often each side shows that it lives; a connection without
	// any for twice that long is closed.
	heartbeat = 10 * time.Second
	// defaultUser and defaultPassword are kombu's where the URL names none
	// (kombu/transport/pyamqp.py, default_connection_params).
	defaultUser, defaultPassword = "guest", "guest"
)

// Endpoint is one server with a virtual host. It is safe for concurrent use.
type Endpoint struct {
	// Address is for errors: it holds no credential.
	Address string
	// Host is the server's name without a port.
	Host string
	// VirtualHost holds the queues.
	VirtualHost string
	// Username and Password are what the connection logs in with; empty where a
	// certificate does.
	Username, Password string
	// TLS is nil for a plain connection.
	TLS *tls.Config
	// login is the SASL mechanism.
	login string
}

// New makes the endpoints of a URL, to be tried in turn. It reads the TLS files
// and does not connect. Login is the SASL mechanism where the URL names none.
func New(u celery.BrokerURL, pem transport.PEM, login string) ([]Endpoint, error) {
	endpoints := make([]Endpoint, 0, len(u.Endpoints))
	for _, from := range u.Endpoints {
		secure, err := pem.TLSConfig(from)
		if err != nil {
			return nil, err
		}
		e := Endpoint{
			Address: from.Address(), Host: from.Host, VirtualHost: from.VirtualHost, TLS: secure,
			Username: from.Username, Password: from.Password, login: cmp.Or(from.LoginMethod, login),
		}
		if e.login != celery.LoginExternal {
			e.Username, e.Password = cmp.Or(e.Username, defaultUser), cmp.Or(e.Password, defaultPassword)
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// Dial connects and logs in. It blocks until that is done, or ctx is.
func (e Endpoint) Dial(ctx context.Context) (*Connection, error) {
	return e.DialAs(ctx, connectionName)
}

// DialAs is Dial, for a connection of which the management UI shows that name.
func (e Endpoint) DialAs(ctx context.Context, name string) (*Connection, error) {
	socket, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	split := frames.NewSplitter(socket)
	s, err := e.logIn(ctx, socket, split, name, heartbeat)
	if err != nil {
		return nil, err
	}
	return newConnection(s, split), nil
}

// logIn logs in over a connection, which reads and writes through the socket. Name is
// what the management UI shows of it.
func (e Endpoint) logIn(ctx context.Context, socket *witness, over net.Conn, name string, heartbeat time.Duration) (session, error) {
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	link, err := amqp.Open(over, amqp.Config{
		SASL: e.sasl(properties), Vhost: e.VirtualHost, Heartbeat: heartbeat, Locale: "en_US", Properties: properties,
	})
	if err != nil {
		_ = socket.Close()
		return session{}, socket.cause(ctx, err)
	}
	return session{link: link, socket: socket}, nil
}

// dial connects, over TLS if that is asked for.
func (e Endpoint) dial(ctx context.Context) (*witness, error) {
	dial := (&net.Dialer{}).DialContext
	if e.TLS != nil {
		dial = (&tls.Dialer{Config: e.TLS}).DialContext
	}
	connection, err := dial(ctx, "tcp", e.Address)
	if err != nil {
		return nil, err
	}
	return &witness{Conn: connection}, nil
}

// sasl is made anew for each connection: the client library empties it.
func (e Endpoint) sasl(properties amqp.Table) []amqp.Authentication {
	var login amqp.Authentication = &amqp.PlainAuth{Username: e.Username, Password: e.Password}
	switch e.login {
	case celery.LoginExternal:
		login = &amqp.ExternalAuth{}
	case celery.LoginAMQPlain:
		login = &amqp.AMQPlainAuth{Username: e.Username, Password: e.Password}
	}
	return []amqp.Authentication{frank{login, properties}}
}

// frank is a log-in that asks for the reason if it is refused. Without that
// capability, RabbitMQ answers a wrong password by three seconds of silence
// (rabbit_reader.erl, SILENT_CLOSE_DELAY). The client library has no setting for
// it and writes the capabilities itself, just before it asks for the response.
type frank struct {
	amqp.Authentication
	properties amqp.Table
}

// Response is called when everything else of the log-in is set.
func (f frank) Response() string {
	if capabilities, ok := f.properties["capabilities"].(amqp.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return f.Authentication.Response()
}

// GoString keeps %#v from showing the password.
func (e Endpoint) GoString() string { return e.String() }

// String is the address and the virtual host.
func (e Endpoint) String() string { return fmt.Sprintf("%s, vhost %q", e.Address, e.VirtualHost) }
