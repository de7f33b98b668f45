package certificates

// In the package, for the state that an API server is to hold. The API server is none, so
// that it can fail, and so that a minute passes at once.

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// apiServer knows the Secret alone, and nothing of it while it is down.
type apiServer struct {
	secret []byte
	down   atomic.Bool

	mu    sync.Mutex
	looks []time.Time // at the Secret
}

// RoundTrip implements http.RoundTripper.
func (a *apiServer) RoundTrip(request *http.Request) (*http.Response, error) {
	code, body := http.StatusNotFound, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	if strings.HasSuffix(request.URL.Path, "/secrets/s") {
		a.mu.Lock()
		a.looks = append(a.looks, time.Now())
		a.mu.Unlock()
		code, body = http.StatusOK, a.secret
	}
	if a.down.Load() {
		code, body = http.StatusInternalServerError, []byte("down")
	}
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: request,
	}, nil
}

// taken are the looks since the last time, in seconds after some time.
func (a *apiServer) taken(began time.Time) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	var seconds []int
	for _, at := range a.looks {
		seconds = append(seconds, int(at.Sub(began).Seconds()))
	}
	a.looks = nil
	return seconds
}

func TestRunLooksWhenItIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		s := after(t, now, state{}, remake)
		text, err := json.Marshal(&corev1.Secret{
			TypeMeta:   metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", ResourceVersion: "1"}, Data: s.encoded(),
		})
		if err != nil {
			t.Fatal(err)
		}
		api, log, leads := &apiServer{secret: text}, &bytes.Buffer{}, atomic.Bool{}
		o := options()
		o.Secret = "s"
		k, err := NewKeeper(&rest.Config{Host: "http://api", Transport: api, QPS: -1}, o, leads.Load,
			slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- k.Run(ctx) }()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		expect := func(what string, want ...int) {
			t.Helper()
			if got := api.taken(now); !slices.Equal(got, want) {
				t.Errorf("%s looks at %v, want %v", what, got, want)
			}
		}
		pass(11500 * time.Millisecond)
		expect("a replica", 0, 5, 10)
		leads.Store(true)
		pass(6 * time.Second)
		expect("a new leader", 12, 17)
		api.down.Store(true)
		pass(time.Minute)
		if certificate, _ := k.CurrentCertKeyContent(); !bytes.Equal(certificate, s.servingPEM) {
			t.Error("while nobody answers it serves something else")
		}
		api.down.Store(false)
		pass(5 * time.Second)
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		for text, want := range map[string]int{
			"level=WARN": 1, "is kept again": 1, "left alone": 2, "Serving with the certificate of the Secret": 1,
		} {
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("%q is said %d times, want %d:\n%s", text, n, want, log)
			}
		}
	})
}
