package celery

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// errEscape is what is wrong when a delimiter of the URL stands unescaped in a
// password. Nothing of the URL is quoted: it may be the password.
var errEscape = errors.New("a special character stands where none may: inside a user name or password write / as %2F, ? as %3F, # as %23, @ as %40 and [ as %5B")

// urlParts is a URL taken apart the way Python's urllib.parse does, which kombu
// uses (kombu/utils/url.py, url_to_parts). net/url differs from it: it rejects
// passwords that kombu accepts, and quotes the URL in its errors.
type urlParts struct {
	username, password string
	host, port         string
	// path is what follows the first slash, decoded. That slash is left out
	// before decoding, so that the AMQP virtual host "/a" is written /%2Fa.
	path  string
	query []urlParam
}

type urlParam struct{ key, value string }

// splitURL takes apart what follows "://".
func splitURL(rest string) (urlParts, error) {
	if strings.ContainsRune(rest, '#') {
		return urlParts{}, errEscape
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(path, "@") || strings.Contains(query, "@") {
		return urlParts{}, errEscape
	}
	p := urlParts{path: unquote(path), query: parseQuery(query)}
	server := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, password, _ := strings.Cut(authority[:i], ":")
		p.username, p.password = unquote(user), unquote(password)
		server = authority[i+1:]
	}
	return p, p.setServer(server)
}

// setServer splits "host", "host:port", "[ipv6]" or "[ipv6]:port".
func (p *urlParts) setServer(server string) error {
	if inner, ok := strings.CutPrefix(server, "["); ok {
		host, after, closed := strings.Cut(inner, "]")
		port, hasPort := strings.CutPrefix(after, ":")
		if !closed || (after != "" && !hasPort) {
			return errors.New("the brackets of the host must hold an IPv6 address, as in redis://[::1]:6379/0 or amqp://[::1]:5672/vhost")
		}
		p.host, p.port = host, port
		return nil
	}
	host, port, _ := strings.Cut(server, ":")
	if strings.ContainsAny(port, ":") {
		return errors.New("the host holds several colons: write an IPv6 address in brackets")
	}
	p.host, p.port = strings.ToLower(unquote(host)), port
	return nil
}

// withDefaultPort fills in the port where the URL has none.
func (p urlParts) withDefaultPort(port string) urlParts {
	if p.port == "" {
		p.port = port
	}
	return p
}

// server returns the address and the credentials.
func (p urlParts) server(defaultPort int) (Endpoint, error) {
	if p.host == "" {
		return Endpoint{}, errors.New("no host: name the server, as in redis://host:6379/0 or amqp://host:5672/vhost")
	}
	e := Endpoint{Host: p.host, Port: defaultPort, Username: p.username, Password: p.password}
	if p.port == "" {
		return e, nil
	}
	port, err := strconv.ParseUint(p.port, 10, 16)
	if err != nil || port == 0 {
		return Endpoint{}, errors.New("the port must be a number from 1 to 65535; inside a password write : as %3A and / as %2F")
	}
	e.Port = int(port)
	return e, nil
}

// takeLogin returns login_method and p without the parameters that are AMQP's
// alone. Those about keeping the connection (kombu/connection.py, _init_params)
// are for the workers: whoever reads the queues has a connection of its own.
func (p urlParts) takeLogin() (string, urlParts, error) {
	method, rest := "", []urlParam(nil)
	for _, param := range p.query {
		switch param.key {
		case "login_method":
			method = strings.ToUpper(param.value)
			if !slices.Contains([]string{LoginPlain, LoginAMQPlain, LoginExternal}, method) {
				return "", p, errors.New("login_method must be PLAIN, AMQPLAIN or EXTERNAL")
			}
		case "heartbeat", "connect_timeout", "insist":
		default:
			rest = append(rest, param)
		}
	}
	p.query = rest
	return method, p, nil
}

// tls reads the ssl_* parameters; nil means a plain connection. AlsoKnown names,
// for an error, the parameters that were read before.
func (p urlParts) tls(secure bool, alsoKnown string) (*TLSParams, error) {
	if !secure && len(p.query) == 0 {
		return nil, nil //nolint:nilnil // nil is documented: plain
	}
	params := &TLSParams{}
	for _, param := range p.query {
		known, err := params.set(param)
		if err != nil {
			return nil, err
		}
		if !known {
			return nil, errors.New("unknown parameter: known are " + alsoKnown + "ssl_cert_reqs, ssl_check_hostname, ssl_ca_certs, ssl_certfile and ssl_keyfile")
		}
	}
	return params, nil
}

// set takes over one parameter and reports whether it is known. Unknown ones are
// errors, since Celery fails on them too, and a misspelt one would else change
// the security unnoticed.
func (t *TLSParams) set(param urlParam) (known bool, err error) {
	switch param.key {
	case "ssl_cert_reqs":
		return true, t.setRequirement(param.value)
	case "ssl_check_hostname":
		t.SkipHostname = strings.EqualFold(param.value, "false")
	case "ssl_ca_certs":
		t.CAFile = param.value
	case "ssl_certfile":
		t.CertFile = param.value
	case "ssl_keyfile":
		t.KeyFile = param.value
	default:
		return false, nil
	}
	return true, nil
}

// setRequirement reads ssl_cert_reqs. A client has no use for "optional" other
// than to verify (ssl.CERT_OPTIONAL in Python's documentation).
func (t *TLSParams) setRequirement(value string) error {
	switch strings.TrimPrefix(strings.ToLower(value), "cert_") {
	case "required", "optional":
		t.SkipVerify = false
	case "none":
		t.SkipVerify = true
	default:
		return errors.New("ssl_cert_reqs must be required, optional or none")
	}
	return nil
}

// parseQuery splits a query as urllib.parse.parse_qsl does: parameters without
// a value are left out, of a repeated one the last counts.
func parseQuery(query string) []urlParam {
	var params []urlParam
	for field := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(strings.ReplaceAll(field, "+", " "), "=")
		if value != "" {
			params = append(params, urlParam{unquote(key), unquote(value)})
		}
	}
	return params
}

// unquote decodes percent escapes and leaves what is no valid escape as it is,
// as urllib.parse.unquote does.
func unquote(s string) string {
	if !strings.ContainsRune(s, '%') {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
