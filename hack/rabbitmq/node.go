package rabbitmq

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Host is where a node listens.
const Host = "127.0.0.1"

// The files of a node's configuration, in its folder.
const (
	ConfigFile   = "rabbitmq.conf"
	AdvancedFile = "advanced.config"
	PluginsFile  = "enabled_plugins"
)

// Node is one rabbitmq-server with its management API.
type Node struct {
	// Folder holds its configuration, and whatever it writes.
	Folder string
	// AMQP and Management are the ports of its clients.
	AMQP, Management int
	// Distribution is the port of Erlang's own protocol, which rabbitmqctl speaks,
	// and PortMapper that of the epmd that names it.
	Distribution, PortMapper int
}

// Name is the node's name among Erlang's, with a port to tell apart those of one
// machine.
func (n Node) Name() string { return fmt.Sprintf("rabbit%d@localhost", n.AMQP) }

// Address is "127.0.0.1:port", of AMQP.
func (n Node) Address() string { return net.JoinHostPort(Host, strconv.Itoa(n.AMQP)) }

// Path is that of a file in the node's folder.
func (n Node) Path(name string) string { return filepath.Join(n.Folder, name) }

// Environment is what all programs of the node need to know, besides PATH.
func (n Node) Environment() map[string]string {
	return map[string]string{
		"HOME":                          n.Folder, // for Erlang's cookie
		"LANG":                          "C.UTF-8",
		"ERL_EPMD_ADDRESS":              Host,
		"ERL_EPMD_PORT":                 strconv.Itoa(n.PortMapper),
		"RABBITMQ_NODENAME":             n.Name(),
		"RABBITMQ_DIST_PORT":            strconv.Itoa(n.Distribution),
		"RABBITMQ_MNESIA_BASE":          n.Path("mnesia"),
		"RABBITMQ_LOG_BASE":             n.Path("log"),
		"RABBITMQ_CONF_ENV_FILE":        os.DevNull,
		"RABBITMQ_CONFIG_FILE":          n.Path(ConfigFile),
		"RABBITMQ_ADVANCED_CONFIG_FILE": n.Path(AdvancedFile),
		"RABBITMQ_ENABLED_PLUGINS_FILE": n.Path(PluginsFile),
		// For all that runs Erlang: no port mapper but ours, since the one that
		// Erlang starts by itself outlives the node, loopback alone, and no threads
		// that spin, which on busy cores makes it several times slower.
		"ERL_AFLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} " +
			"+sbwt none +sbwtdcpu none +sbwtdio none",
		// The script becomes the server instead of its parent.
		"RUNNING_UNDER_SYSTEMD": "true",
	}
}

// Settings are the lines of rabbitmq.conf that every node has.
func (n Node) Settings() []string {
	return []string{
		"loopback_users = none",
		"log.file = false", "log.console = true", "log.console.use_colors = off", "log.console.level = warning",
		// A small machine is no reason to block publishers.
		"disk_free_limit.absolute = 1MB", "vm_memory_high_watermark.relative = 0.9",
	}
}

// Listeners are the lines of rabbitmq.conf for clients without TLS.
func (n Node) Listeners() []string {
	return []string{
		"listeners.tcp.1 = " + n.Address(),
		"management.tcp.ip = " + Host, "management.tcp.port = " + strconv.Itoa(n.Management),
	}
}

// Files are the configuration of a plain node: what each file holds, by its path.
func (n Node) Files() map[string][]byte {
	config := append(n.Settings(), n.Listeners()...)
	return map[string][]byte{
		n.Path(ConfigFile):   []byte(strings.Join(config, "\n") + "\n"),
		n.Path(AdvancedFile): []byte("[].\n"),
		n.Path(PluginsFile):  []byte("[rabbitmq_management].\n"),
	}
}
