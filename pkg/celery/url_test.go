package celery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

func TestParseBrokerURL(t *testing.T) {
	verify := &celery.TLSParams{}
	tests := map[string]struct {
		raw  string
		want celery.BrokerURL
	}{
		"host alone takes the default port and database 0": {
			"redis://h", redis(celery.Endpoint{Host: "h", Port: 6379}),
		},
		"password without user": {
			"redis://:pw@h:1/2", redis(celery.Endpoint{Host: "h", Port: 1, DB: 2, Password: "pw"}),
		},
		"user and password are percent-decoded": {
			"redis://us%40er:p%2Fw%3B@h", redis(celery.Endpoint{Host: "h", Port: 6379, Username: "us@er", Password: "p/w;"}),
		},
		"a percent sign that begins no escape stands for itself": {
			"redis://:50%off%@h", redis(celery.Endpoint{Host: "h", Port: 6379, Password: "50%off%"}),
		},
		"an at sign and a colon in the password": {
			"redis://:a@b:c@h", redis(celery.Endpoint{Host: "h", Port: 6379, Password: "a@b:c"}),
		},
		"IPv6": {
			"redis://[::1]:7/0", redis(celery.Endpoint{Host: "::1", Port: 7}),
		},
		"kombu allows a slash before the database": {
			"redis://h//1", redis(celery.Endpoint{Host: "h", Port: 6379, DB: 1}),
		},
		"rediss verifies unless told otherwise": {
			"rediss://h", redis(celery.Endpoint{Host: "h", Port: 6379, TLS: verify}),
		},
		"rediss with files": {
			"rediss://h/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
			redis(celery.Endpoint{Host: "h", Port: 6379, TLS: &celery.TLSParams{CAFile: "/ca.pem", CertFile: "/c.pem", KeyFile: "/k.pem"}}),
		},
		"ssl_cert_reqs=none accepts any certificate": {
			"rediss://h?ssl_cert_reqs=none", redis(celery.Endpoint{Host: "h", Port: 6379, TLS: &celery.TLSParams{SkipVerify: true}}),
		},
		"ssl_check_hostname=false accepts another name": {
			"rediss://h?ssl_check_hostname=False", redis(celery.Endpoint{Host: "h", Port: 6379, TLS: &celery.TLSParams{SkipHostname: true}}),
		},
		"ssl parameters secure redis:// too, as in kombu": {
			"redis://h?ssl_cert_reqs=required", redis(celery.Endpoint{Host: "h", Port: 6379, TLS: verify}),
		},
		"socket with a database": {
			"redis+socket:///run/redis.sock?virtual_host=3", redis(celery.Endpoint{SocketPath: "/run/redis.sock", DB: 3}),
		},
		"socket with a password": {
			"redis+socket://u:pw@/run/redis.sock", redis(celery.Endpoint{SocketPath: "/run/redis.sock", Username: "u", Password: "pw"}),
		},
		"failover list": {
			"redis://a/1; rediss://b/1", redis(celery.Endpoint{Host: "a", Port: 6379, DB: 1}, celery.Endpoint{Host: "b", Port: 6379, DB: 1, TLS: verify}),
		},
		"sentinels": {
			"sentinel://:pw@a:1/2;sentinel://b", celery.BrokerURL{Transport: celery.TransportSentinel, Endpoints: []celery.Endpoint{
				{Host: "a", Port: 1, DB: 2, Password: "pw"}, {Host: "b", Port: 26379},
			}},
		},
		"amqp with a host alone takes the default port and virtual host, and leaves the user open": {
			"amqp://h", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/"}),
		},
		"pyamqp is amqp": {
			"pyamqp://h:1", amqp(celery.Endpoint{Host: "h", Port: 1, VirtualHost: "/"}),
		},
		"amqps verifies unless told otherwise": {
			"amqps://h", amqp(celery.Endpoint{Host: "h", Port: 5671, VirtualHost: "/", TLS: verify}),
		},
		"user, password and virtual host are percent-decoded": {
			"amqp://us%40er:p%2Fw%3B@h/v%3B", amqp(celery.Endpoint{Host: "h", Port: 5672, Username: "us@er", Password: "p/w;", VirtualHost: "v;"}),
		},
		"an empty virtual host is the default one": {
			"amqp://h/", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/"}),
		},
		"two slashes are the default virtual host": {
			"amqp://h//", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/"}),
		},
		"an encoded slash begins a virtual host": {
			"amqp://h/%2Fname", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/name"}),
		},
		"only the first slash is left out of a virtual host": {
			"amqp://h//a/b", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/a/b"}),
		},
		"an encoded slash within a virtual host": {
			"amqp://h/a%2Fb", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "a/b"}),
		},
		"what is about the workers' own connection is left out": {
			"amqp://h?heartbeat=30&connect_timeout=x&insist=1", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/"}),
		},
		"a login method in small letters": {
			"amqp://h?login_method=amqplain", amqp(celery.Endpoint{Host: "h", Port: 5672, VirtualHost: "/", LoginMethod: celery.LoginAMQPlain}),
		},
		"amqps with a client certificate": {
			"amqps://h:1/v?ssl_ca_certs=/ca.pem&login_method=EXTERNAL&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
			amqp(celery.Endpoint{
				Host: "h", Port: 1, VirtualHost: "v", LoginMethod: celery.LoginExternal,
				TLS: &celery.TLSParams{CAFile: "/ca.pem", CertFile: "/c.pem", KeyFile: "/k.pem"},
			}),
		},
		"ssl parameters secure amqp:// too, at the port of amqps": {
			"amqp://h?ssl_cert_reqs=none", amqp(celery.Endpoint{Host: "h", Port: 5671, VirtualHost: "/", TLS: &celery.TLSParams{SkipVerify: true}}),
		},
		"failover list of amqp and amqps": {
			"amqp://u:p@a/v;amqps://b", amqp(
				celery.Endpoint{Host: "a", Port: 5672, Username: "u", Password: "p", VirtualHost: "v"},
				celery.Endpoint{Host: "b", Port: 5671, VirtualHost: "/", TLS: verify},
			),
		},
		"the first URL's login method holds where another names none": {
			"amqp://a?login_method=AMQPLAIN;amqp://b;amqp://c?login_method=PLAIN", amqp(
				celery.Endpoint{Host: "a", Port: 5672, VirtualHost: "/", LoginMethod: celery.LoginAMQPlain},
				celery.Endpoint{Host: "b", Port: 5672, VirtualHost: "/", LoginMethod: celery.LoginAMQPlain},
				celery.Endpoint{Host: "c", Port: 5672, VirtualHost: "/", LoginMethod: celery.LoginPlain},
			),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := celery.ParseBrokerURL(tc.raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ParseBrokerURL(%q) (-want +got):\n%s", tc.raw, diff)
			}
		})
	}
}

func redis(endpoints ...celery.Endpoint) celery.BrokerURL {
	return celery.BrokerURL{Transport: celery.TransportRedis, Endpoints: endpoints}
}

func amqp(endpoints ...celery.Endpoint) celery.BrokerURL {
	return celery.BrokerURL{Transport: celery.TransportAMQP, Endpoints: endpoints}
}

// Each URL holds "SECRET" where a password or a piece of one would be.
func TestParseBrokerURLRefuses(t *testing.T) {
	tests := map[string]struct{ raw, want string }{
		"empty":                         {" ", "is empty"},
		"no scheme":                     {":SECRET@host", "no scheme: it must begin with redis://, rediss://, redis+socket://, sentinel://, amqp:// or amqps://"},
		"unknown scheme":                {"SECRET://host", "unknown scheme: known are redis, rediss, redis+socket, sentinel, amqp and amqps"},
		"transport of kombu's":          {"sqs://:SECRET@", "scheme sqs is not supported"},
		"librabbitmq":                   {"librabbitmq://:SECRET@h", "scheme librabbitmq is not supported"},
		"no host":                       {"redis://:SECRET@/0", "no host: name the server, as in redis://host:6379/0 or amqp://host:5672/vhost"},
		"no host of RabbitMQ":           {"amqp://u:SECRET@", "no host"},
		"database by name":              {"redis://h/SECRET", "number of a database"},
		"negative database":             {"redis://h/-1", "number of a database"},
		"port by name":                  {"redis://h:SECRET", "port must be a number"},
		"port 0":                        {"redis://h:0", "port must be a number"},
		"port too large":                {"redis://h:65536", "port must be a number"},
		"slash in password":             {"redis://:12/SECRET@h/0", "%2F"},
		"question mark in password":     {"redis://:12?SECRET@h/0", "%3F"},
		"number sign in password":       {"redis://:12#SECRET@h/0", "%23"},
		"semicolon in password":         {"redis://:SECR;ET@h/0", "%3B"},
		"unknown parameter":             {"rediss://h?SECRET=1", "unknown parameter: known are ssl_cert_reqs, ssl_check_hostname, ssl_ca_certs, ssl_certfile and ssl_keyfile"},
		"unknown parameter of RabbitMQ": {"amqp://h?SECRET=1", "unknown parameter: known are login_method, heartbeat, connect_timeout, insist, ssl_cert_reqs, ssl_check_hostname, ssl_ca_certs, ssl_certfile and ssl_keyfile"},
		"login method of Redis":         {"redis://:SECRET@h?login_method=PLAIN", "unknown parameter"},
		"unknown login method":          {"amqp://h?login_method=SECRET", "login_method must be PLAIN, AMQPLAIN or EXTERNAL"},
		"at sign in virtual host":       {"amqp://h/SECRET@", "%40"},
		"misspelt requirement":          {"rediss://h?ssl_cert_reqs=SECRET", "must be required, optional or none"},
		"bare IPv6":                     {"redis://:SECRET@::1", "brackets"},
		"open bracket":                  {"redis://:SECRET@[::1", "brackets"},
		"socket without path":           {"redis+socket://:SECRET@", "no socket path"},
		"socket with host":              {"redis+socket://:SECRET@h/p", "no host"},
		"socket with unknown parameter": {"redis+socket:///p?SECRET=1", "virtual_host alone"},
		"socket with bad database":      {"redis+socket:///p?virtual_host=SECRET", "number of a database"},
		"mixed transports":              {"redis://h;sentinel://:SECRET@h", "mixes the transports"},
		"Redis and RabbitMQ":            {"redis://h;amqp://:SECRET@h", "mixes the transports redis and amqp"},
		"empty part":                    {"redis://:SECRET@h;", "part 2 of 2"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := celery.ParseBrokerURL(tc.raw)
			if !errors.Is(err, celery.ErrBrokerURL) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ParseBrokerURL(%q) = %v, want an ErrBrokerURL with %q", tc.raw, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "SECR") {
				t.Errorf("the error shows a credential: %v", err)
			}
		})
	}
}

func TestHasPassword(t *testing.T) {
	tests := map[string]struct {
		raw  string
		want bool
	}{
		"no user":                        {"amqp://h", false},
		"a user alone":                   {"amqp://u@h", false},
		"a password in the last of many": {"amqp://a;amqp://u:p@b", true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := celery.ParseBrokerURL(tc.raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := u.HasPassword(); got != tc.want {
				t.Errorf("HasPassword of %q = %t, want %t", tc.raw, got, tc.want)
			}
		})
	}
}

func TestBrokerURLPrintsNoCredential(t *testing.T) {
	for _, raw := range []string{"redis://SECRETUSER:SECRET@h:1/0", "amqps://SECRETUSER:SECRET@h:1/v;amqp://:SECRET@i"} {
		t.Run(raw, func(t *testing.T) { expectNoCredential(t, raw) })
	}
}

func expectNoCredential(t *testing.T, raw string) {
	t.Helper()
	u, err := celery.ParseBrokerURL(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, value := range []any{u, &u, u.Endpoints[0], u.Endpoints, u.LogValue()} {
			if got := fmt.Sprintf(format, value); strings.Contains(got, "SECRET") {
				t.Errorf("%s of %T shows a credential: %s", format, value, got)
			}
		}
	}
	if !u.HasPassword() {
		t.Error("HasPassword = false, want true")
	}
}

func FuzzParseBrokerURL(f *testing.F) {
	for _, seed := range []string{"redis://u:p@h:1/2", "rediss://[::1]?ssl_cert_reqs=none", "redis+socket:///p?virtual_host=1", "sentinel://a;sentinel://b", "a%", "redis://%zz", "amqp://u:p@h//v?login_method=plain&heartbeat=1", "amqps://h/%2Fa%2Fb?ssl_keyfile=k;pyamqp://i"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := celery.ParseBrokerURL(raw)
		if err != nil {
			if !errors.Is(err, celery.ErrBrokerURL) {
				t.Errorf("error %v is no ErrBrokerURL", err)
			}
			return
		}
		if len(u.Endpoints) == 0 {
			t.Error("a valid URL has no endpoint")
		}
		for _, e := range u.Endpoints {
			if e.Host == "" && e.SocketPath == "" {
				t.Error("an endpoint has neither host nor socket")
			}
			if (e.VirtualHost == "") == (u.Transport == celery.TransportAMQP) {
				t.Errorf("virtual host %q of transport %s", e.VirtualHost, u.Transport)
			}
		}
	})
}
