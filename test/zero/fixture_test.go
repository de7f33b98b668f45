package zero_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/celery-hpa/celery-hpa/hack/localkube"
)

// patience bounds every wait; none depends on its length.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(candidateEnv) != "" {
		os.Exit(candidate())
	}
	goleak.VerifyTestMain(m)
}

// fixture is one control plane for all rules: each has a namespace of its own.
type fixture struct {
	cluster *localkube.Cluster
	admin   kubernetes.Interface
}

func TestZero(t *testing.T) {
	cluster, err := localkube.Start(t.Context(), localkube.Options{Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{cluster: cluster}
	if f.admin, err = kubernetes.NewForConfig(cluster.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	t.Run("scales", f.testScales)
	t.Run("the leader", f.testLeader)
	t.Run("the journal", f.testJournal)
}

// namespace makes one.
func (f *fixture) namespace(t *testing.T) string {
	t.Helper()
	space, err := f.admin.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "rule-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return space.Name
}

func (f *fixture) apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := f.cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := f.cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// as is the configuration of a user who may do what a Role of the namespace says, in
// the form of its rules.
func (f *fixture) as(t *testing.T, namespace, user, rules string) *rest.Config {
	t.Helper()
	if rules != "" {
		f.apply(t, strings.NewReplacer("NS", namespace, "USER", user, "RULES", rules).Replace(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: USER, namespace: NS}
rules: RULES
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: USER, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: USER}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: USER}]
`))
	}
	config, err := f.cluster.ConfigFor(user)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// requests are those that a client has made, like "PATCH /apis/…".
type requests struct {
	mu   sync.Mutex
	made []string
}

// recorded has the requests of a configuration recorded.
func recorded(config *rest.Config) *requests {
	r := &requests{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			r.mu.Lock()
			r.made = append(r.made, request.Method+" "+request.URL.Path)
			r.mu.Unlock()
			return next.RoundTrip(request)
		})
	})
	return r
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// take returns the requests since it was called last.
func (r *requests) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	made := r.made
	r.made = nil
	return made
}

// run runs a part of the program until the test ends or stop is called, and waits for it.
func run(t *testing.T, part func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// syncBuffer is what is logged, also while that is read.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func logger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
