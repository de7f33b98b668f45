package rabbitmq_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// spoiler stands before a real management API and spoils its answers to the list
// of queues, for what a real one cannot be made to answer.
type spoiler struct {
	*httptest.Server
	path  string // below which answers are spoiled
	spoil atomic.Pointer[func(answer) error]
}

// answer is one of the management API's. The proxy closes its body.
type answer struct{ *http.Response }

// set begins to spoil answers; nil ends it.
func (s *spoiler) set(spoil func(answer) error) { s.spoil.Store(&spoil) }

func startSpoiler(t *testing.T, managementURL string) *spoiler {
	t.Helper()
	target, err := url.Parse(managementURL)
	if err != nil {
		t.Fatal(err)
	}
	s := &spoiler{path: "/api/queues/"}
	s.set(nil)
	s.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasPrefix(r.Request.URL.Path, s.path) {
				return nil
			}
			if spoil := *s.spoil.Load(); spoil != nil {
				return spoil(answer{r})
			}
			return nil
		},
	})
	t.Cleanup(s.Close)
	return s
}

// replaced makes an answer be another.
func replaced(code int, kind, body string) func(answer) error {
	return func(r answer) error {
		r.StatusCode = code
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Location", "https://login.example/")
		return setBody(r, []byte(body))
	}
}

// edited makes words of an answer be others.
func edited(before, after string) func(answer) error {
	return func(r answer) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		return setBody(r, bytes.ReplaceAll(body, []byte(before), []byte(after)))
	}
}

// cut promises the whole answer and sends its first half.
func cut(r answer) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body[:len(body)/2]))
	return nil
}

// held keeps an answer back until the test lets it go.
func held(until context.Context) func(answer) error {
	return func(r answer) error {
		select {
		case <-until.Done():
		case <-r.Request.Context().Done():
		}
		return nil
	}
}

func setBody(r answer, body []byte) error {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}
