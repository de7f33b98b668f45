package celery

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Transport is the kind of broker that a URL leads to.
type Transport string

// The transports that a broker URL can name.
const (
	TransportRedis    Transport = "redis"
	TransportSentinel Transport = "sentinel"
	TransportAMQP     Transport = "amqp" // RabbitMQ
)

// The ways to log in to RabbitMQ that Celery's broker_login_method and a URL's
// login_method can name.
const (
	// LoginPlain and LoginAMQPlain send user and password.
	LoginPlain    = "PLAIN"
	LoginAMQPlain = "AMQPLAIN"
	// LoginExternal leaves it to the client's certificate.
	LoginExternal = "EXTERNAL"
)

// ErrBrokerURL is wrapped by every error of ParseBrokerURL.
var ErrBrokerURL = errors.New("broker URL")

// BrokerURL is a parsed broker URL in one of the forms that Celery accepts. All
// endpoints are of the same transport.
type BrokerURL struct {
	// Transport is that of every endpoint.
	Transport Transport
	// Endpoints holds at least one endpoint, in the order of the URL: failover
	// alternatives, or the sentinels of one deployment.
	Endpoints []Endpoint
}

// HasPassword reports whether any part of the URL holds a password.
func (u BrokerURL) HasPassword() bool {
	return slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.Password != "" })
}

// String returns the addresses without credentials.
func (u BrokerURL) String() string {
	parts := make([]string, len(u.Endpoints))
	for i, e := range u.Endpoints {
		parts[i] = e.String()
	}
	return strings.Join(parts, ";")
}

// GoString returns the same as String, so that %#v shows no credential.
func (u BrokerURL) GoString() string { return u.String() }

// LogValue returns the same as String.
func (u BrokerURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// Endpoint is one server of a broker URL.
type Endpoint struct {
	// Host and Port of a server on TCP. The port is the transport's default
	// where the URL names none. Host is a bare IPv6 address without brackets.
	Host string
	Port int
	// SocketPath is the file of a Unix socket; Host and Port are then unset.
	SocketPath string
	// Username and Password are percent-decoded; either may be empty. For
	// Sentinel they are those of the Redis servers, not of the sentinels. For
	// AMQP Celery logs in with "guest" in place of each that is empty
	// (kombu/transport/pyamqp.py, default_connection_params).
	Username string
	Password string
	// DB is the Redis database number.
	DB int
	// VirtualHost is AMQP's, percent-decoded, "/" where the URL names none; empty
	// for the other transports.
	VirtualHost string
	// LoginMethod is AMQP's login_method: LoginPlain, LoginAMQPlain or
	// LoginExternal, empty where the URL has none.
	LoginMethod string
	// TLS says how to secure the connection; nil means plain.
	TLS *TLSParams
}

// Address returns "host:port" or the path of the socket.
func (e Endpoint) Address() string {
	if e.SocketPath != "" {
		return e.SocketPath
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}

// String returns the address, without credentials.
func (e Endpoint) String() string { return e.Address() }

// GoString returns the same as String, so that %#v shows no credential.
func (e Endpoint) GoString() string { return e.Address() }

// LogValue returns the same as String.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.Address()) }

// TLSParams are the ssl_* parameters of a URL. File names are as in the URL.
//
// Two defaults differ from Celery's, and verify more. rediss:// without
// ssl_cert_reqs verifies the server's certificate, where kombu warns and does not
// (kombu/connection.py, _init_params). amqps:// without ssl_check_hostname=false
// also wants it to be for the host, where py-amqp does so only with
// broker_use_ssl's server_hostname (amqp/transport.py, _wrap_socket_sni). Celery
// itself takes these parameters from broker_use_ssl alone where it speaks AMQP.
type TLSParams struct {
	// SkipVerify is ssl_cert_reqs=none: any certificate is accepted.
	SkipVerify bool
	// SkipHostname is ssl_check_hostname=false: the certificate must be of a
	// trusted authority, but may be for another name.
	SkipHostname bool
	// CAFile is ssl_ca_certs; empty means the system's authorities.
	CAFile string
	// CertFile and KeyFile are the client's certificate and key, ssl_certfile
	// and ssl_keyfile.
	CertFile string
	KeyFile  string
}

// ParseBrokerURL reads a broker URL as Celery does: redis, rediss,
// redis+socket, sentinel, amqp (or pyamqp) or amqps, several separated by ";".
//
// User names, passwords, paths and parameters are percent-decoded; a percent
// sign that begins no valid escape stands for itself, as in Python. An error
// says which part of the list is wrong and why. It never quotes the URL or a
// piece of it that could belong to a credential, and wraps ErrBrokerURL.
func ParseBrokerURL(raw string) (BrokerURL, error) {
	raw = strings.TrimSpace(raw)
	if raw == "" {
		return BrokerURL{}, fmt.Errorf("%w: it is empty", ErrBrokerURL)
	}
	parts := strings.Split(raw, ";")
	var u BrokerURL
	for i, part := range parts {
		transport, e, err := parseEndpoint(part)
		if err == nil && i > 0 && transport != u.Transport {
			err = fmt.Errorf("it mixes the transports %s and %s", u.Transport, transport)
		}
		if err != nil {
			return BrokerURL{}, fmt.Errorf("%w%s: %w", ErrBrokerURL, partName(i, len(parts)), err)
		}
		u.Transport = transport
		u.Endpoints = append(u.Endpoints, e)
	}
	u.shareLoginMethod()
	return u, nil
}

// shareLoginMethod gives the first URL's method to those that name none, as
// kombu does (kombu/connection.py, switch).
func (u BrokerURL) shareLoginMethod() {
	for i := range u.Endpoints {
		e := &u.Endpoints[i]
		e.LoginMethod = cmp.Or(e.LoginMethod, u.Endpoints[0].LoginMethod)
	}
}

// partName is how an error names one part of a list.
func partName(i, n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(", part %d of %d (separated by ';'; inside a password write %%3B)", i+1, n)
}

// parseEndpoint reads one URL of a list.
func parseEndpoint(raw string) (Transport, Endpoint, error) {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(raw), "://")
	if !ok {
		return "", Endpoint{}, errors.New("no scheme: it must begin with redis://, rediss://, redis+socket://, sentinel://, amqp:// or amqps://")
	}
	p, err := splitURL(rest)
	if err != nil {
		return "", Endpoint{}, err
	}
	switch strings.ToLower(scheme) {
	case "redis":
		return parseRedis(p, false)
	case "rediss":
		return parseRedis(p, true)
	case "redis+socket":
		return parseSocket(p)
	case "sentinel":
		return parseSentinel(p)
	case "amqp", "pyamqp":
		return parseAMQP(p, false)
	case "amqps":
		return parseAMQP(p, true)
	}
	return "", Endpoint{}, schemeError(scheme)
}

// schemeError names the scheme only if it is one of kombu's, since anything
// else might be a piece of a password.
func schemeError(scheme string) error {
	others := []string{
		"sqs", "confluentkafka", "kafka", "mongodb", "zookeeper", "consul", "etcd", "filesystem", "memory",
		"gcpubsub", "librabbitmq", "azurestoragequeues", "azureservicebus", "qpid", "pyro", "slmq", "http", "https", "tcp", "unix",
	}
	const known = "known are redis, rediss, redis+socket, sentinel, amqp and amqps"
	if slices.Contains(others, scheme) {
		return fmt.Errorf("scheme %s is not supported: %s", scheme, known)
	}
	return fmt.Errorf("unknown scheme: %s", known)
}

func parseRedis(p urlParts, secure bool) (Transport, Endpoint, error) {
	e, err := p.server(6379)
	if err != nil {
		return "", Endpoint{}, err
	}
	if e.DB, err = parseDB(p.path, "the path"); err != nil {
		return "", Endpoint{}, err
	}
	e.TLS, err = p.tls(secure, "")
	return TransportRedis, e, err
}

// parseSentinel differs from parseRedis in the default port alone: user,
// password and database are those of the servers that the sentinels name.
func parseSentinel(p urlParts) (Transport, Endpoint, error) {
	_, e, err := parseRedis(p.withDefaultPort("26379"), false)
	return TransportSentinel, e, err
}

// parseSocket reads redis+socket:///path?virtual_host=1 (kombu/transport/redis.py,
// Channel._connparams).
func parseSocket(p urlParts) (Transport, Endpoint, error) {
	if p.host != "" || p.port != "" {
		return "", Endpoint{}, errors.New("a socket has no host: write redis+socket:///absolute/path")
	}
	if p.path == "" {
		return "", Endpoint{}, errors.New("no socket path: write redis+socket:///absolute/path")
	}
	e := Endpoint{SocketPath: "/" + p.path, Username: p.username, Password: p.password}
	for _, param := range p.query {
		if param.key != "virtual_host" {
			return "", Endpoint{}, errors.New("unknown parameter: a redis+socket URL takes virtual_host alone")
		}
		var err error
		if e.DB, err = parseDB(param.value, "virtual_host"); err != nil {
			return "", Endpoint{}, err
		}
	}
	return TransportRedis, e, nil
}

// parseAMQP reads a URL of RabbitMQ. Like kombu it takes the port of amqps://
// whenever the URL secures the connection.
func parseAMQP(p urlParts, secure bool) (Transport, Endpoint, error) {
	method, p, err := p.takeLogin()
	if err != nil {
		return "", Endpoint{}, err
	}
	secured, err := p.tls(secure, "login_method, heartbeat, connect_timeout, insist, ")
	if err != nil {
		return "", Endpoint{}, err
	}
	port := 5672
	if secured != nil {
		port = 5671
	}
	e, err := p.server(port)
	e.VirtualHost, e.LoginMethod, e.TLS = cmp.Or(p.path, "/"), method, secured
	return TransportAMQP, e, err
}

// parseDB reads a database number; empty means 0.
func parseDB(s, where string) (int, error) {
	s = strings.TrimPrefix(s, "/") // kombu allows a slash (_prepare_virtual_host)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s must be the number of a database, as in redis://host:6379/0", where)
	}
	return int(n), nil
}
