package rabbitmq

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
	child.WriteLines(t, s.path("advanced.config"), []string{advanced})
	child.WriteLines(t, s.path("rabbitmq.conf"), append(s.settings(), s.options.Directives...))
}

// writePlugins writes which plugins are enabled besides what the options ask for.
func (s *Server) writePlugins(t testing.TB, plugins ...string) {
	t.Helper()
	if s.options.ClientCertificates {
		plugins = append(plugins, "rabbitmq_auth_mechanism_ssl")
	}
	child.WriteLines(t, s.path("enabled_plugins"), []string{"[" + strings.Join(plugins, ",") + "]."})
}

func (s *Server) settings() []string {
	lines := []string{
		"loopback_users = none", "log.file = false", "log.console = true", "log.console.level = warning",
		// A small machine is no reason to block publishers.
		"disk_free_limit.absolute = 1MB", "vm_memory_high_watermark.relative = 0.9",
	}
	if s.options.ManagementPrefix != "" {
		lines = append(lines, "management.path_prefix = "+s.options.ManagementPrefix)
	}
	port := strconv.Itoa(s.ports.management)
	if !s.options.TLS {
		return append(lines, "listeners.tcp.1 = "+s.Address(), "management.tcp.ip = 127.0.0.1", "management.tcp.port = "+port)
	}
	lines = append(lines, "listeners.tcp = none", "listeners.ssl.1 = "+s.Address(),
		"management.ssl.ip = 127.0.0.1", "management.ssl.port = "+port)
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

// path is that of a file in the server's folder.
func (s *Server) path(name string) string { return filepath.Join(s.folder, name) }
