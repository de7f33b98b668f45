package rabbitmq

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/rabbitmq"
	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// writeConfig writes what the server reads when it starts.
func (s *Server) writeConfig(t testing.TB) {
	t.Helper()
	advanced := "[]."
	if tick := s.options.QuorumTick; tick > 0 {
		advanced = fmt.Sprintf("[{rabbit, [{quorum_tick_interval, %d}]}].", tick.Milliseconds())
	}
	s.writePlugins(t, "rabbitmq_management")
	child.WriteLines(t, s.node.Path(rabbitmq.AdvancedFile), []string{advanced})
	child.WriteLines(t, s.node.Path(rabbitmq.ConfigFile), append(s.settings(), s.options.Directives...))
}

// writePlugins writes which plugins are enabled besides what the options ask for.
func (s *Server) writePlugins(t testing.TB, plugins ...string) {
	t.Helper()
	if s.options.ClientCertificates {
		plugins = append(plugins, "rabbitmq_auth_mechanism_ssl")
	}
	child.WriteLines(t, s.node.Path(rabbitmq.PluginsFile), []string{"[" + strings.Join(plugins, ",") + "]."})
}

func (s *Server) settings() []string {
	lines := s.node.Settings()
	if s.options.ManagementPrefix != "" {
		lines = append(lines, "management.path_prefix = "+s.options.ManagementPrefix)
	}
	if !s.options.TLS {
		return append(lines, s.node.Listeners()...)
	}
	lines = append(lines, "listeners.tcp = none", "listeners.ssl.1 = "+s.Address(),
		"management.ssl.ip = "+rabbitmq.Host, "management.ssl.port = "+strconv.Itoa(s.node.Management))
	return append(lines, s.certificateSettings()...)
}

func (s *Server) certificateSettings() []string {
	var lines []string
	for _, listener := range []string{"ssl_options", "management.ssl"} {
		lines = append(lines, listener+".cacertfile = "+s.Certificates.CA,
			listener+".certfile = "+s.Certificates.ServerCert, listener+".keyfile = "+s.Certificates.ServerKey)
	}
	if !s.options.ClientCertificates {
		return append(lines, "ssl_options.verify = verify_none")
	}
	return append(lines, "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true",
		"ssl_cert_login_from = common_name", "auth_mechanisms.1 = EXTERNAL", "auth_mechanisms.2 = PLAIN")
}
