package rabbitmq

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// linkHome makes a folder like RABBITMQ_HOME with few of the plugins: Erlang
// looks for each of a thousand modules in the folders of all plugins, which takes
// a third of the start.
func (s *Server) linkHome(t testing.TB) {
	t.Helper()
	from, to := home(t), s.path("home")
	if err := os.MkdirAll(filepath.Join(to, "plugins"), 0o700); err != nil {
		t.Fatalf("link to RabbitMQ: %v", err)
	}
	names := []string{"sbin", "escript"}
	plugins, err := os.ReadDir(filepath.Join(from, "plugins"))
	if err != nil {
		t.Fatalf("link to RabbitMQ: %v", err)
	}
	for _, plugin := range plugins {
		if isNeeded(plugin.Name()) {
			names = append(names, filepath.Join("plugins", plugin.Name()))
		}
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatalf("link to RabbitMQ: %v", err)
		}
	}
}

// home is the folder of the installed RabbitMQ. Debian has the program in PATH
// too, but as one that changes the user and keeps to one folder for its data.
func home(t testing.TB) string {
	t.Helper()
	program := "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("rabbitmq-server"); err != nil {
			t.Fatalf("rabbitmq-server is not installed: run make setup: %v", err)
		}
	}
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		t.Fatalf("find RabbitMQ: %v", err)
	}
	return filepath.Dir(filepath.Dir(program))
}

// isNeeded is true for what the server itself consists of, which lies among the
// plugins, for libraries, and for the plugins that Options may enable.
func isNeeded(plugin string) bool {
	name, _, _ := strings.Cut(plugin, "-")
	return !strings.HasPrefix(name, "rabbitmq_") || slices.Contains([]string{
		"rabbitmq_prelaunch", "rabbitmq_management", "rabbitmq_management_agent", "rabbitmq_web_dispatch",
		"rabbitmq_auth_mechanism_ssl",
	}, name)
}
