package rabbitmq_test

import (
	"os"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// TestTLS runs on a server that speaks TLS alone, wants certificates of its
// clients, and has its management API under a path.
func TestTLS(t *testing.T) {
	b := startSecure(t)
	certificates := b.Certificates
	b.SetUser(t, "client", "") // the common name of the certificate
	b.RabbitMQ.Allow(t, "client", b.vhost)
	url := b.UserURL(driverUser, brokertest.Secret, b.vhost)
	_, hostAndVhost, _ := strings.Cut(url, "@")
	tls := func(cfg rabbitmq.Config) rabbitmq.Config {
		cfg.CA, cfg.Cert, cfg.Key = pemOf(t, certificates.CA), pemOf(t, certificates.ClientCert), pemOf(t, certificates.ClientKey)
		return cfg
	}
	parameters := "?ssl_ca_certs=" + certificates.CA + "&ssl_certfile=" + certificates.ClientCert + "&ssl_keyfile=" + certificates.ClientKey
	withManagement := rabbitmq.Config{ManagementUsername: driverUser, ManagementPassword: brokertest.Secret}
	for name, cfg := range map[string]rabbitmq.Config{
		"files":                             tls(rabbitmq.Config{URL: url}),
		"files, and a URL without TLS":      tls(rabbitmq.Config{URL: strings.Replace(url, "amqps:", "amqp:", 1)}),
		"parameters of the URL":             {URL: url + parameters},
		"the certificate says who logs in":  tls(rabbitmq.Config{URL: "amqps://" + hostAndVhost, LoginMethod: "EXTERNAL", ManagementUsername: withManagement.ManagementUsername, ManagementPassword: withManagement.ManagementPassword}),
		"so does it if the URL asks for it": {URL: "amqps://" + hostAndVhost + parameters + "&login_method=EXTERNAL", ManagementUsername: withManagement.ManagementUsername, ManagementPassword: withManagement.ManagementPassword},
	} {
		t.Run(name, func(t *testing.T) { brokertest.Expect(t, b, b.driver(t, cfg), usual()) })
	}
	for name, c := range map[string]struct {
		cfg  rabbitmq.Config
		want string
	}{
		"an unknown authority":  {rabbitmq.Config{URL: url, Cert: pemOf(t, certificates.ClientCert), Key: pemOf(t, certificates.ClientKey)}, "unknown authority"},
		"no client certificate": {rabbitmq.Config{URL: url, CA: pemOf(t, certificates.CA)}, "client certificate"},
		"no TLS":                {rabbitmq.Config{URL: strings.Replace(url, "amqps:", "amqp:", 1)}, "TLS"},
		"a login nobody offers": {tls(rabbitmq.Config{URL: url + "?login_method=AMQPLAIN"}), "login method"},
		"a certificate of nobody": {rabbitmq.Config{
			URL: "amqps://" + hostAndVhost, LoginMethod: "EXTERNAL",
			CA: pemOf(t, certificates.CA), Cert: pemOf(t, certificates.ServerCert), Key: pemOf(t, certificates.ServerKey),
		}, "wrong"},
	} {
		t.Run(name, func(t *testing.T) { brokertest.ExpectError(t, b.driver(t, c.cfg), "ns/broker", c.want) })
	}
	t.Run("a management API of another cluster", func(t *testing.T) {
		other := startCelery(t, servers.StartRabbitMQ(t, servers.RabbitMQOptions{}), nil)
		cfg := tls(rabbitmq.Config{URL: url})
		cfg.ManagementURL = other.ManagementURL()
		d := b.driver(t, cfg)
		for range 3 {
			s, err := d.Sample(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			checkPart(t, s, "another cluster", other.ManagementURL(), "correct rabbitmq.managementURL")
		}
	})
}

// startSecure starts the server of TestTLS.
func startSecure(t *testing.T) *celeryBroker {
	t.Helper()
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{TLS: true, ClientCertificates: true, ManagementPrefix: "/tools/rabbit"})
	b := startCelery(t, server, nil)
	b.Publish(t, "celery", make([]brokertest.Message, 3)...)
	b.Take(t, "celery", 1)
	return b
}

// driver fills in what every driver of a broker has.
func (b *celeryBroker) driver(t *testing.T, cfg rabbitmq.Config) *rabbitmq.Driver {
	t.Helper()
	cfg.Ref, cfg.Timeout, cfg.Queues = b.cfg.Ref, b.cfg.Timeout, []string{"celery"}
	if cfg.ManagementURL == "" {
		cfg.ManagementURL = b.ManagementURL()
	}
	return newDriver(t, cfg)
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  rabbitmq.Config
		want string
	}{
		"bad URL":                 {rabbitmq.Config{URL: "amqp://u:SECRET@:1"}, "no host"},
		"Redis":                   {rabbitmq.Config{URL: "redis://u:SECRET@h"}, "not read by the RabbitMQ driver"},
		"no CA file":              {rabbitmq.Config{URL: "amqps://u:SECRET@h?ssl_ca_certs=/nowhere"}, "/nowhere"},
		"key without certificate": {rabbitmq.Config{URL: "amqps://u:SECRET@h", Key: []byte("a key")}, "client certificate"},
		"bad management URL":      {rabbitmq.Config{URL: "amqps://u:SECRET@h", ManagementURL: "http://SECRET:%zz"}, "management API"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rabbitmq.New(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("New = %v, want an error with %q and no credential", err, c.want)
			}
		})
	}
}

// pemOf reads a PEM file.
func pemOf(t testing.TB, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
