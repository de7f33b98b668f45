package certificates_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const metricPath = "/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/celery_queue_tasks"

// readMetric asks for a metric as the HPA does, through the API server.
func (f *fixture) readMetric(ctx context.Context) error {
	text, err := f.hpa.Discovery().RESTClient().Get().AbsPath(metricPath).Param("labelSelector", "queue=celery").DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("read a metric: %w: %s", err, text)
	}
	var reply struct{ Items []struct{ Value string } }
	if err := json.Unmarshal(text, &reply); err != nil || len(reply.Items) != 1 || reply.Items[0].Value != "1" {
		return fmt.Errorf("read a metric: got %s, want one value of 1", text)
	}
	return nil
}

// askForZero scales the workers to zero as the HPA does. Celery-hpa has to refuse it: a
// message waits. That the API server could not ask is another refusal.
func (f *fixture) askForZero(ctx context.Context) error {
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "worker"}}
	_, err := f.hpa.AppsV1().Deployments("demo").UpdateScale(ctx, "worker", scale, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		return errors.New("ask for zero: it passes")
	}
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "zero.celery-hpa.io") {
		return fmt.Errorf("ask for zero: %w", err)
	}
	return nil
}

// handshake connects to a replica as somebody new, and compares the certificate with what
// is trusted at that moment. Nothing is known of the moment if that has changed.
func (f *fixture) handshake(ctx context.Context) error {
	before, err := f.trusted(ctx)
	if err != nil {
		return err
	}
	at := time.Now()
	serving, err := f.served(ctx)
	if err != nil {
		return err
	}
	after, err := f.trusted(ctx)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(before, after, bytes.Equal) {
		return nil
	}
	for _, bundle := range after {
		if err := check(serving, bundle, at); err != nil {
			return fmt.Errorf("a handshake: %w", err)
		}
	}
	return nil
}

// served is the certificate of one of the replicas.
func (f *fixture) served(ctx context.Context) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: servingName, InsecureSkipVerify: true}}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(f.port)))
	if err != nil {
		return nil, fmt.Errorf("a handshake: %w", err)
	}
	defer connection.Close()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// load asks again and again, in every way, until it is stopped.
type load struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	mu       sync.Mutex
	done     map[string]int
	failures []error
}

// pause is between one request and the next: the machine has other things to do.
const pause = 20 * time.Millisecond

func (f *fixture) startLoad(t *testing.T) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{stop: stop, done: map[string]int{}}
	for name, ask := range map[string]func(context.Context) error{
		"metrics": f.readMetric, "admissions": f.askForZero, "handshakes": f.handshake,
	} {
		l.all.Go(func() {
			for ctx.Err() == nil {
				l.count(ctx, name, ask(context.WithoutCancel(ctx)))
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		l.all.Wait()
	})
	return l
}

func (l *load) count(ctx context.Context, name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[name]++
	if err != nil && ctx.Err() == nil {
		l.failures = append(l.failures, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), err))
	}
}

// end stops the load, and fails the test if a single request has failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.all.Wait()
	t.Logf("requests: %v", l.done)
	for i, err := range l.failures {
		if t.Errorf("request failed: %v", err); i == 10 {
			t.Fatalf("and %d more", len(l.failures)-i-1)
		}
	}
}
