package rabbitmq

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/hack/rabbitmq"
	"github.com/celery-hpa/celery-hpa/test/servers/internal/certificates"
	"github.com/celery-hpa/celery-hpa/test/servers/internal/child"
)

// timeout bounds the start, the stop and every answer of a server; 2 cores that
// are busy with other tests take many seconds for a start.
const timeout = 90 * time.Second

// Options say how a rabbitmq-server is set up. The zero value is a plain server
// with its management API, whose user guest (password guest) is an
// administrator.
type Options struct {
	// TLS makes the ports of AMQP and of the management API speak TLS alone,
	// with the certificates of Server.Certificates.
	TLS bool
	// ClientCertificates makes AMQP want a certificate of its clients, and
	// takes its common name for the user of those who log in with EXTERNAL.
	// It needs TLS.
	ClientCertificates bool
	// ManagementPrefix is a path prefix of the management API, for example
	// "/rabbit".
	ManagementPrefix string
	// QuorumTick is how often quorum queues tell how many messages they hold;
	// 0: every 5 seconds, as RabbitMQ has it.
	QuorumTick time.Duration
	// Directives are further lines of rabbitmq.conf.
	Directives []string
}

// Server is a rabbitmq-server with its management API on free loopback ports. Its
// methods are not safe for concurrent use.
type Server struct {
	// owner is the test with which every process ends, whichever test has
	// started it again.
	owner   testing.TB
	options Options
	node    rabbitmq.Node
	epmd    *child.Process
	process *child.Process
	// Certificates are set if the server speaks TLS.
	Certificates *certificates.Files
	admin        *http.Client
}

// Start starts a server and returns when AMQP and the management API answer. It
// is stopped when the test ends.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	s := &Server{owner: t, options: options, node: rabbitmq.Node{Folder: t.TempDir()}}
	if options.TLS {
		s.Certificates = certificates.New(t, s.node.Folder)
	}
	s.admin = s.newAdmin(t)
	if err := s.node.LinkHome(); err != nil {
		t.Fatal(err)
	}
	s.launch(t)
	return s
}

// launch picks free ports the first time. Somebody else may take one before the
// server does; then others are tried.
func (s *Server) launch(t testing.TB) {
	t.Helper()
	for range 5 {
		if s.node.AMQP == 0 {
			s.node.AMQP, s.node.Management = child.FreePort(t), child.FreePort(t)
			s.node.Distribution, s.node.PortMapper = child.FreePort(t), child.FreePort(t)
			s.startEPMD(t)
		}
		s.writeConfig(t)
		s.process = child.Start(s.owner, "rabbitmq-server", s.command("rabbitmq-server"))
		if s.awaitAnswer(t) {
			return
		}
		s.epmd.Kill()
		s.node = rabbitmq.Node{Folder: s.node.Folder}
	}
	t.Fatalf("rabbitmq-server does not start; its log:\n%s", s.process.Log())
}

// startEPMD starts a port mapper of the server's own.
func (s *Server) startEPMD(t testing.TB) {
	t.Helper()
	path, err := rabbitmq.PortMapper()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(s.node.PortMapper)
	s.epmd = child.Start(s.owner, "epmd", exec.Command(path, "-address", rabbitmq.Host, "-port", port))
	s.await(t, "get its port mapper", func() bool { return listens(net.JoinHostPort(rabbitmq.Host, port)) })
}

func listens(address string) bool {
	connection, err := net.Dial("tcp", address) //nolint:noctx // it is closed at once
	if err != nil {
		return false
	}
	return connection.Close() == nil
}

// command is one of RabbitMQ's programs for this server. Of the environment it
// learns where programs are, and nothing else.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.node.Program(name), args...)
	cmd.Dir = s.node.Folder
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range s.node.Environment() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// awaitAnswer is false if the server ended instead of answering. The management
// API answers before AMQP does, and knows when that is.
func (s *Server) awaitAnswer(t testing.TB) bool {
	t.Helper()
	listener := fmt.Sprintf("/health/checks/port-listener/%d", s.node.AMQP)
	s.await(t, "answer", func() bool { return s.ended() || s.answers(listener) })
	return !s.ended()
}

func (s *Server) ended() bool {
	select {
	case <-s.process.Done():
		return true
	default:
		return false
	}
}

// await polls a condition.
func (s *Server) await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(child.PollInterval) {
		if time.Now().After(deadline) {
			t.Fatalf("rabbitmq-server does not %s within %s", what, timeout)
		}
	}
}

// Address is "127.0.0.1:port", of AMQP.
func (s *Server) Address() string { return s.node.Address() }

// ManagementURL is the management API's, with its prefix and without "/api".
func (s *Server) ManagementURL() string {
	scheme := "http"
	if s.options.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:%d%s", scheme, rabbitmq.Host, s.node.Management, s.options.ManagementPrefix)
}

// URL is the server's as Celery writes it, for guest, with a vhost. For TLS, it
// names no files.
func (s *Server) URL(vhost string) string { return s.UserURL("guest", "guest", vhost) }

// UserURL is the server's as Celery writes it, for any user.
func (s *Server) UserURL(user, password, vhost string) string {
	scheme := "amqp"
	if s.options.TLS {
		scheme = "amqps"
	}
	return fmt.Sprintf("%s://%s:%s@%s/%s", scheme,
		url.PathEscape(user), url.PathEscape(password), s.Address(), url.PathEscape(vhost))
}

// Control runs rabbitmqctl on the server and returns what it printed.
func (s *Server) Control(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.command("rabbitmqctl", append([]string{"--quiet"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("rabbitmqctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Pause stops the server's process where it stands: connections stay open and
// nothing answers.
func (s *Server) Pause(t testing.TB) { s.process.Pause(t) }

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) { s.process.Resume(t) }

// Stop ends the server and returns when it is gone. It keeps its data, for a
// later Start. On SIGTERM alone the management plugin would wait 5 seconds for
// an answer of what is ending too.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.Control(t, "eval", "gen_event:delete_handler(rabbit_event, rabbit_mgmt_db_handler, []).")
	s.process.Signal(t, syscall.SIGTERM)
	s.await(t, "end", s.ended)
}

// Start starts a stopped server again, on the same ports, with the data that it
// had when it was stopped. Its management API is enabled.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	before := s.node
	s.launch(t)
	if s.node != before {
		t.Fatalf("rabbitmq-server could not have its ports again: %+v", before)
	}
}

// PID is the process id of the server.
func (s *Server) PID() int { return s.process.PID() }
