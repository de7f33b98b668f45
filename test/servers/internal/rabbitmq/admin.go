package rabbitmq

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/hack/rabbitmq"
)

// newAdmin makes the client of the management API. It is closed when the test
// ends.
func (s *Server) newAdmin(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	if s.options.TLS {
		authority, err := os.ReadFile(s.Certificates.CA)
		if err != nil {
			t.Fatalf("read the authority of rabbitmq-server: %v", err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(authority)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: timeout}
}

// API asks the management API, as guest, for a path below /api, for example
// "/queues/%2F". A body is sent as JSON unless it is nil. An answer other than
// 2xx fails the test.
func (s *Server) API(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	answer, err := s.ask(method, path, body)
	if err != nil {
		t.Fatalf("the management API of rabbitmq-server: %v", err)
	}
	return answer
}

// answers is whether the management API has something at the path.
func (s *Server) answers(path string) bool {
	_, err := s.ask(http.MethodGet, path, nil)
	return err == nil
}

func (s *Server) ask(method, path string, body any) ([]byte, error) {
	request, err := s.newRequest(method, path, body)
	if err != nil {
		return nil, err
	}
	response, err := s.admin.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, nil
}

func (s *Server) newRequest(method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(context.Background(), method, s.ManagementURL()+"/api"+path, content)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth("guest", "guest")
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

// AddVhost adds a vhost in which guest may do everything.
func (s *Server) AddVhost(t testing.TB, vhost string) {
	t.Helper()
	s.API(t, http.MethodPut, "/vhosts/"+url.PathEscape(vhost), nil)
	s.permit(t, "guest", vhost, ".*")
}

// DeleteVhost deletes a vhost with all that is in it.
func (s *Server) DeleteVhost(t testing.TB, vhost string) {
	t.Helper()
	s.API(t, http.MethodDelete, "/vhosts/"+url.PathEscape(vhost), nil)
}

// SetUser adds a user, or changes its password and tags. Nobody can log in with
// an empty password: that is for a user who has a certificate.
func (s *Server) SetUser(t testing.TB, name, password string, tags ...string) {
	t.Helper()
	user := map[string]string{"password": password, "tags": strings.Join(tags, ",")}
	if password == "" {
		delete(user, "password")
		user["password_hash"] = ""
	}
	s.API(t, http.MethodPut, "/users/"+url.PathEscape(name), user)
}

// Allow lets a user into a vhost, and nothing else.
func (s *Server) Allow(t testing.TB, user, vhost string) {
	t.Helper()
	s.permit(t, user, vhost, "^$")
}

func (s *Server) permit(t testing.TB, user, vhost, pattern string) {
	t.Helper()
	s.API(t, http.MethodPut, permission(user, vhost),
		map[string]string{"configure": pattern, "write": pattern, "read": pattern})
}

// Forbid takes from a user what it may do in a vhost.
func (s *Server) Forbid(t testing.TB, user, vhost string) {
	t.Helper()
	s.API(t, http.MethodDelete, permission(user, vhost), nil)
}

func permission(user, vhost string) string {
	return "/permissions/" + url.PathEscape(vhost) + "/" + url.PathEscape(user)
}

// DisableManagement takes the management API from the running server and returns
// when it no longer answers.
func (s *Server) DisableManagement(t testing.TB) {
	t.Helper()
	s.enable(t)
	s.await(t, "give up its management API", func() bool { return !s.answers("/overview") })
}

// EnableManagement gives it back and returns when it answers.
func (s *Server) EnableManagement(t testing.TB) {
	t.Helper()
	s.enable(t, "rabbitmq_management")
	s.await(t, "have its management API", func() bool { return s.answers("/overview") })
}

// enable does what rabbitmq-plugins does, but for the 5 seconds that it sleeps.
func (s *Server) enable(t testing.TB, plugins ...string) {
	t.Helper()
	s.writePlugins(t, plugins...)
	s.Control(t, "eval", fmt.Sprintf("{ok, _, _} = rabbit_plugins:ensure(%q).", s.node.Path(rabbitmq.PluginsFile)))
}
