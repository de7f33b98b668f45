package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/celery-hpa/celery-hpa/deploy"
	"github.com/celery-hpa/celery-hpa/hack/localkube"
	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/pkg/brokerresource"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// manyBrokers CeleryBrokers are in brokerSpaces namespaces, each with a Secret of its
	// own: as many databases of each of brokerServers servers.
	manyBrokers, brokerSpaces, brokerServers = 2000, 20, 4
	// brokersTime is for how long the program is looked at: two writes of each status, at
	// most one a minute, and twelve readings of each Secret.
	brokersTime = 2 * time.Minute
)

// BenchmarkCeleryBrokers measures the program as it is shipped with 2,000 CeleryBrokers,
// in a real control plane: what it asks of the API server, what it takes itself, and how
// long a Secret that has changed is not used.
//
//	secrets/s, statuses/s  requests to the API server: Secrets read, statuses written
//	all/s                  all of its requests, as the API server counts them
//	ready-s                from the start until all brokers are read
//	rotation-s             from a change of a Secret until its URL is in use, the slowest of 10
//	connections            to Redis, for each broker
//	core-%, RSS-MiB        of the program
func BenchmarkCeleryBrokers(b *testing.B) {
	for _, interval := range []string{"1s", "10s"} {
		b.Run("sampled every "+interval, func(b *testing.B) { newEstate(b, interval).measure(b) })
	}
}

// estate is CeleryBrokers and the program that reads them.
type estate struct {
	cluster *localkube.Cluster
	clients kubernetes.Interface
	objects dynamic.Interface
	servers []*servers.Redis
	pid     int
	began   time.Time
}

func newEstate(b *testing.B, interval string) *estate {
	b.Helper()
	c := &estate{}
	for range brokerServers {
		c.servers = append(c.servers, servers.StartRedis(b, servers.RedisOptions{
			Directives: []string{fmt.Sprintf("databases %d", manyBrokers+1), "maxclients 10000"},
		}))
	}
	var err error
	c.cluster, err = localkube.Start(b.Context(), localkube.Options{Output: os.Stderr})
	must(b, err)
	b.Cleanup(func() { must(b, c.cluster.Stop()) })
	c.clients, err = kubernetes.NewForConfig(c.cluster.RESTConfig())
	must(b, err)
	c.objects, err = dynamic.NewForConfig(c.cluster.RESTConfig())
	must(b, err)
	rights, err := playground.Rights()
	must(b, err)
	c.apply(b, string(rights))
	c.apply(b, string(deploy.CustomResources()))
	_, err = c.cluster.Kubectl(b.Context(), "wait", "--for=condition=Established", "crd/celerybrokers.celery-hpa.io", "--timeout=60s")
	must(b, err)
	c.fill(b, interval)
	c.serve(b)
	return c
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (c *estate) apply(b *testing.B, documents string) {
	b.Helper()
	_, err := c.cluster.KubectlInput(b.Context(), strings.NewReader(documents), "apply", "-f", "-")
	must(b, err)
}

func placeOf(i int) (namespace, name string) {
	return fmt.Sprintf("bench-%d", i%brokerSpaces), fmt.Sprintf("broker-%d", i)
}

// url is that of a database of its own for each number.
func (c *estate) url(i int) string { return c.servers[i%brokerServers].URL(i / brokerServers) }

// fill makes the objects.
func (c *estate) fill(b *testing.B, interval string) {
	b.Helper()
	for i := range brokerSpaces {
		namespace, _ := placeOf(i)
		_, err := c.clients.CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		must(b, err)
	}
	var making errgroup.Group
	making.SetLimit(16)
	for i := range manyBrokers {
		making.Go(func() error { return c.make(b.Context(), i, interval) })
	}
	must(b, making.Wait())
}

func (c *estate) make(ctx context.Context, i int, interval string) error {
	namespace, name := placeOf(i)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"url": c.url(i)}}
	if _, err := c.clients.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return err
	}
	text := fmt.Sprintf(`{"apiVersion": "celery-hpa.io/v1alpha1", "kind": "CeleryBroker", "metadata": {"name": %q},
		"spec": {"url": {"secretKeyRef": {"name": %q, "key": "url"}}, "queues": [{"name": "celery"}], "sampling": {"interval": %q, "maxAge": "30s"}}}`, name, name, interval)
	var object unstructured.Unstructured
	if err := json.Unmarshal([]byte(text), &object.Object); err != nil {
		return err
	}
	_, err := c.objects.Resource(brokerresource.Resource()).Namespace(namespace).Create(ctx, &object, metav1.CreateOptions{})
	return err
}

// serve runs the program with the rights of the manifests, and returns when all brokers
// are read.
func (c *estate) serve(b *testing.B) {
	b.Helper()
	kubeconfig, err := c.cluster.KubeconfigFor("system:serviceaccount:celery-hpa:celery-hpa", "system:serviceaccounts", "system:serviceaccounts:celery-hpa")
	must(b, err)
	binary := filepath.Join(b.TempDir(), "celery-hpa")
	build(b, binary)
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	must(b, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	cmd := exec.Command(binary, "serve", "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", port, "--serving-secret", "celery-hpa-serving-cert")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.began = time.Now()
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	c.pid = cmd.Process.Pid
	var number int32
	_, err = fmt.Sscan(port, &number)
	must(b, err)
	must(b, c.cluster.AggregateExternalMetrics(b.Context(), "celery-hpa", "celery-hpa", number, nil))
	must(b, c.cluster.AwaitExternalMetrics(b.Context()))
	for i := range manyBrokers {
		c.await(b, i, "0")
	}
}

// await blocks until the queue of a broker has that backlog.
func (c *estate) await(b *testing.B, i int, want string) {
	b.Helper()
	namespace, name := placeOf(i)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := c.clients.Discovery().RESTClient().Get().
			AbsPath("/apis/external.metrics.k8s.io/v1beta1/namespaces", namespace, "celery_queue_backlog").
			Param("labelSelector", "broker="+name).DoRaw(b.Context())
		if err == nil && strings.Contains(string(out), fmt.Sprintf(`"value":%q`, want)) {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%s/%s has %s, %v, want %s", namespace, name, out, err, want)
		}
	}
}

func (c *estate) measure(b *testing.B) {
	b.Helper()
	b.ReportMetric(time.Since(c.began).Seconds(), "ready-s")
	time.Sleep(settle) // the first statuses are written
	before, used, at := c.requests(b), processorTime(b, c.pid), time.Now()
	time.Sleep(brokersTime)
	after, took := c.requests(b), time.Since(at).Seconds()
	b.ReportMetric(100*(processorTime(b, c.pid)-used).Seconds()/took, "core-%")
	b.ReportMetric(process{pid: c.pid}.memory(b), "RSS-MiB")
	for name := range after {
		b.ReportMetric(float64(after[name]-before[name])/took, name+"/s")
	}
	b.ReportMetric(float64(c.connections(b))/manyBrokers, "connections")
	b.ReportMetric(c.rotate(b).Seconds(), "rotation-s")
	b.ReportMetric(0, "ns/op")
}

// connections are those of the program to all servers.
func (c *estate) connections(b *testing.B) (n int) {
	b.Helper()
	for _, server := range c.servers {
		n += strings.Count(server.Admin().ClientList(b.Context()).Val(), "name=celery-hpa")
	}
	return n
}

// requests are those that the API server has counted so far, whoever made them: there is
// nobody else but its own controllers.
func (c *estate) requests(b *testing.B) map[string]int64 {
	b.Helper()
	out, err := c.cluster.Kubectl(b.Context(), "get", "--raw", "/metrics")
	must(b, err)
	counts := map[string]int64{"secrets": 0, "statuses": 0, "all": 0}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		var n float64
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n)
		must(b, err)
		counts["all"] += int64(n)
		switch {
		case strings.Contains(line, `resource="secrets"`) && strings.Contains(line, `verb="GET"`):
			counts["secrets"] += int64(n)
		case strings.Contains(line, `resource="celerybrokers"`) && strings.Contains(line, `subresource="status"`):
			counts["statuses"] += int64(n)
		}
	}
	return counts
}

// rotate changes Secrets one after the other, and returns the longest time until one was
// in use: the queue of the new database holds a message.
func (c *estate) rotate(b *testing.B) (longest time.Duration) {
	b.Helper()
	for i := range 10 {
		namespace, name := placeOf(i)
		next := c.servers[i%brokerServers].URL(manyBrokers - i)
		client := goredis.NewClient(&goredis.Options{Addr: c.servers[i%brokerServers].Address(), DB: manyBrokers - i})
		must(b, client.LPush(b.Context(), "celery", "a task").Err())
		must(b, client.Close())
		patch := fmt.Appendf(nil, `{"stringData": {"url": %q}}`, next)
		at := time.Now()
		_, err := c.clients.CoreV1().Secrets(namespace).Patch(b.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
		must(b, err)
		c.await(b, i, "1")
		longest = max(longest, time.Since(at))
		time.Sleep(1300 * time.Millisecond) // out of step with the program
	}
	return longest
}
