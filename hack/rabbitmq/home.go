package rabbitmq

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// LinkHome makes, in the node's folder, one like RABBITMQ_HOME with few of the
// plugins: Erlang looks for each of a thousand modules in the folders of all
// plugins, which takes a third of the start.
func (n Node) LinkHome() error {
	from, err := home()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.Path("home/plugins"), 0o700); err != nil {
		return fmt.Errorf("link to RabbitMQ: %w", err)
	}
	plugins, err := os.ReadDir(filepath.Join(from, "plugins"))
	if err != nil {
		return fmt.Errorf("link to RabbitMQ: %w", err)
	}
	names := []string{"sbin", "escript"}
	for _, plugin := range plugins {
		if isNeeded(plugin.Name()) {
			names = append(names, filepath.Join("plugins", plugin.Name()))
		}
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(n.Path("home"), name)); err != nil {
			return fmt.Errorf("link to RabbitMQ: %w", err)
		}
	}
	return nil
}

// Program is the path of one of RabbitMQ's programs, for example rabbitmqctl, once
// LinkHome has been called.
func (n Node) Program(name string) string { return filepath.Join(n.Path("home/sbin"), name) }

// PortMapper is the path of Erlang's epmd.
func PortMapper() (string, error) {
	path, err := exec.LookPath("epmd")
	if err != nil {
		return "", fmt.Errorf("epmd, a part of Erlang, is not installed: run make setup: %w", err)
	}
	return path, nil
}

// home is the folder of the installed RabbitMQ. Debian has the program in PATH
// too, but as one that changes the user and keeps to one folder for its data.
func home() (string, error) {
	program := "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("rabbitmq-server"); err != nil {
			return "", fmt.Errorf("rabbitmq-server is not installed: run make setup: %w", err)
		}
	}
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return "", fmt.Errorf("find RabbitMQ: %w", err)
	}
	return filepath.Dir(filepath.Dir(program)), nil
}

// isNeeded is true for what the server itself consists of, which lies among the
// plugins, for libraries, and for the plugins that demo and tests enable.
func isNeeded(plugin string) bool {
	name, _, _ := strings.Cut(plugin, "-")
	return !strings.HasPrefix(name, "rabbitmq_") || slices.Contains([]string{
		"rabbitmq_prelaunch", "rabbitmq_management", "rabbitmq_management_agent", "rabbitmq_web_dispatch",
		"rabbitmq_auth_mechanism_ssl",
	}, name)
}
