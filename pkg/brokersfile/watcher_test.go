package brokersfile_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/brokers"
	"github.com/celery-hpa/celery-hpa/pkg/brokersfile"
)

// settling is more than the time within which a change is taken over.
const settling = 2*time.Second + time.Millisecond

// watch is a running Watcher, and what it said.
type watch struct {
	*brokersfile.Watcher
	changes [][]brokers.Broker
	log     bytes.Buffer
}

// start runs a Watcher of the file at path until the test's end. It is called
// within a bubble, where nothing but settle lets time pass.
func start(t *testing.T, path string) *watch {
	t.Helper()
	w := &watch{}
	var err error
	if w.Watcher, err = brokersfile.New(path, slog.New(slog.NewTextHandler(&w.log, nil))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func(brokers []brokers.Broker) { w.changes = append(w.changes, brokers) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return w
}

// settle lets the bubble's time pass until a change must have been taken over.
func settle() {
	time.Sleep(settling)
	synctest.Wait()
}

// urls returns the URL of each broker in use, or "bad" for one with an error.
func (w *watch) urls() string {
	var all []string
	for _, b := range w.Brokers() {
		url := b.URL
		if b.Err != nil {
			url = "bad"
		}
		all = append(all, b.Name+" "+url)
	}
	return strings.Join(all, ", ")
}

// errors counts the errors logged.
func (w *watch) errors() int { return strings.Count(w.log.String(), "level=ERROR") }

func TestWatcherTakesChangesOver(t *testing.T) {
	const one = "url: {value: 'redis://one'}"
	cert, key := keyPair(t)
	newCert, newKey := keyPair(t)
	tests := []struct {
		rule          string
		before, after map[string]string // files; the brokers file is "brokers"
		want          string            // brokers in use afterwards
		changes       int
		failed        bool
	}{
		{"nothing changes", map[string]string{"brokers": document("a", one)}, nil, "a redis://one", 0, false},
		{
			"a comment changes nothing",
			map[string]string{"brokers": document("a", one)},
			map[string]string{"brokers": "# more\n" + document("a", one)},
			"a redis://one", 0, false,
		},
		{
			"a broker is added",
			map[string]string{"brokers": document("a", one)},
			map[string]string{"brokers": document("a", one) + document("b", one)},
			"a redis://one, b redis://one", 1, false,
		},
		{
			"a broker is removed",
			map[string]string{"brokers": document("a", one) + document("b", one)},
			map[string]string{"brokers": document("b", one)},
			"b redis://one", 1, false,
		},
		{
			"a URL's file changes",
			map[string]string{"brokers": document("a", "url: {file: url}"), "url": "redis://one"},
			map[string]string{"url": "redis://two"},
			"a redis://two", 1, false,
		},
		{
			"a sentinel password changes",
			map[string]string{"brokers": document("a", one+", redis: {sentinel: {password: {file: p}}}"), "p": "x"},
			map[string]string{"p": "y"},
			"a redis://one", 1, false,
		},
		{
			"a management password changes",
			map[string]string{"brokers": document("a", "url: {value: 'amqp://one'}, rabbitmq: {management: {username: m, password: {file: p}}}"), "p": "x"},
			map[string]string{"p": "y"},
			"a amqp://one", 1, false,
		},
		{
			"a certificate is renewed",
			map[string]string{"brokers": document("a", one+", tls: {certFile: c, keyFile: k}"), "c": cert, "k": key},
			map[string]string{"c": newCert, "k": newKey},
			"a redis://one", 1, false,
		},
		{
			"a certificate without its key waits for it",
			map[string]string{"brokers": document("a", one+", tls: {certFile: c, keyFile: k}"), "c": cert, "k": key},
			map[string]string{"c": newCert},
			"a redis://one", 0, true,
		},
		{
			"a mistake in the brokers file leaves all as they are",
			map[string]string{"brokers": document("a", one)},
			map[string]string{"brokers": document("a", "url: {value: 'redis://two'}, x: 1")},
			"a redis://one", 0, true,
		},
		{
			"an empty brokers file leaves all as they are",
			map[string]string{"brokers": document("a", one)},
			map[string]string{"brokers": ""},
			"a redis://one", 0, true,
		},
		{
			"a bad URL leaves that broker as it is and the others change",
			map[string]string{"brokers": document("a", "url: {file: url}") + document("b", one), "url": "redis://one"},
			map[string]string{"brokers": document("a", "url: {file: url}") + document("b", "url: {value: 'redis://two'}"), "url": "none"},
			"a redis://one, b redis://two", 1, true,
		},
		{
			"a broker that was bad from the beginning becomes good",
			map[string]string{"brokers": document("a", "url: {file: url}")},
			map[string]string{"url": "redis://one"},
			"a redis://one", 1, false,
		},
		{
			"a broker that was bad from the beginning is bad for another reason",
			map[string]string{"brokers": document("a", "url: {file: url}")},
			map[string]string{"url": "none"},
			"a bad", 1, true,
		},
		{
			"a new broker that is bad is there with its error",
			map[string]string{"brokers": document("a", one)},
			map[string]string{"brokers": document("a", one) + document("b", "url: {file: url}")},
			"a redis://one, b bad", 1, true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				for name, text := range tt.before {
					write(t, dir, name, text)
				}
				w := start(t, filepath.Join(dir, "brokers"))
				for name, text := range tt.after {
					write(t, dir, name, text)
				}
				settle()
				if got := w.urls(); got != tt.want {
					t.Errorf("in use are %q, want %q", got, tt.want)
				}
				if len(w.changes) != tt.changes {
					t.Errorf("%d changes were told, want %d", len(w.changes), tt.changes)
				}
				if _, err := w.Status(); (err != nil) != tt.failed {
					t.Errorf("status has error %v, want one: %t", err, tt.failed)
				}
			})
		})
	}
}

func TestWatcherTellsOfBadReloadsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := document("a", "url: {value: 'redis://h'}")
		dir := t.TempDir()
		path := write(t, dir, "brokers", good)
		w := start(t, path)

		settle()
		lastGood, err := w.Status()
		if err != nil || time.Since(lastGood) > time.Second {
			t.Errorf("status after good looks is %v, %v; want the last look and no error", lastGood, err)
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		settle()
		settle()
		if got := w.errors(); got != 1 {
			t.Errorf("a missing file was logged %d times, want once:\n%s", got, &w.log)
		}
		if at, err := w.Status(); err == nil || !at.Equal(lastGood) {
			t.Errorf("status is %v, %v; want the last good look %v and an error", at, err, lastGood)
		}

		write(t, dir, "brokers", "x: 1")
		settle()
		if got := w.errors(); got != 2 {
			t.Errorf("after another mistake %d errors are logged, want 2:\n%s", got, &w.log)
		}

		write(t, dir, "brokers", good)
		settle()
		if !strings.Contains(w.log.String(), "good again") {
			t.Errorf("the log does not say that all is well again:\n%s", &w.log)
		}
		if at, err := w.Status(); err != nil || !at.After(lastGood) {
			t.Errorf("status is %v, %v; want a later look and no error", at, err)
		}
		if len(w.changes) != 0 {
			t.Errorf("%d changes were told, want none", len(w.changes))
		}
	})
}

// A file that is written in two steps holds fewer brokers in between.
func TestWatcherWaitsForAFileToSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := document("a", "url: {value: 'redis://h'}"), document("b", "url: {value: 'redis://h'}")
		dir := t.TempDir()
		path := write(t, dir, "brokers", a+b)
		w := start(t, path)
		time.Sleep(500 * time.Millisecond)
		write(t, dir, "brokers", a)
		time.Sleep(time.Second) // one look
		write(t, dir, "brokers", a+b)
		settle()
		if len(w.changes) != 0 {
			t.Errorf("%d changes were told, want none: %v", len(w.changes), w.changes)
		}
	})
}

// Kubernetes updates a mounted Secret by swapping the link ..data.
func TestWatcherSeesASwappedLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for version, url := range map[string]string{"v1": "redis://one", "v2": "redis://two"} {
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, dir, filepath.Join(version, "url"), url)
		}
		link := func(target, name string) {
			t.Helper()
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		link("v1", "..data")
		link(filepath.Join("..data", "url"), "url")
		w := start(t, write(t, dir, "brokers", document("a", "url: {file: url}")))

		link("v2", "..data_tmp")
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		settle()
		if diff := cmp.Diff("a redis://two", w.urls()); diff != "" {
			t.Errorf("brokers in use (-want +got):\n%s", diff)
		}
	})
}
