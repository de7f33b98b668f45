package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"github.com/celery-hpa/celery-hpa/hack/playground"
	"github.com/celery-hpa/celery-hpa/test/eventually"
)

const api = "/apis/external.metrics.k8s.io/v1beta1"

// testAnswers asks as a person does, with kubectl get --raw.
func testAnswers(t *testing.T, p *playground.Playground) {
	const tasks = api + "/namespaces/" + playground.Namespace + "/celery_queue_tasks"
	broker := string(p.Broker())
	for _, c := range []struct{ rule, path, want string }{
		{"a known queue without tasks is zero", tasks + "?labelSelector=queue%3Dcelery", broker + "/celery=0"},
		{"the broker may be named", tasks + "?labelSelector=broker%3D" + broker + ",queue%3Dcelery", broker + "/celery=0"},
		{"without a selector every queue is listed", tasks, broker + "/celery=0"},
		{"a misspelt queue is an error", tasks + "?labelSelector=queue%3Dcelrey", `no broker of namespace demo has a queue "celrey" (closest of the known: celery)`},
		{"a metric that does not exist is an error", strings.Replace(tasks, "_tasks", "_length", 1), `there is no metric "celery_queue_length"`},
		{"another namespace sees nothing", api + "/namespaces/default/celery_queue_tasks", "namespace default has no CeleryBroker"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			out, err := p.Cluster.Kubectl(t.Context(), "get", "--raw", c.path)
			got := items(t, out)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("kubectl get --raw %s: got %q, want it to contain %q", c.path, got, c.want)
			}
		})
	}
	t.Run("discovery names the metrics", func(t *testing.T) {
		out, err := p.Cluster.Kubectl(t.Context(), "get", "--raw", api)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"celery_queue_backlog", "celery_queue_in_flight", "celery_queue_scheduled", "celery_queue_tasks"} {
			if !strings.Contains(string(out), name) {
				t.Errorf("discovery lacks %s: %s", name, out)
			}
		}
	})
}

// items writes a list of values as "broker/queue=value …".
func items(t *testing.T, text []byte) string {
	t.Helper()
	if len(text) == 0 {
		return ""
	}
	var list v1beta1.ExternalMetricValueList
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("the answer is no list of values: %v: %s", err, text)
	}
	var items []string
	for _, i := range list.Items {
		items = append(items, fmt.Sprintf("%s/%s=%s", i.MetricLabels["broker"], i.MetricLabels["queue"], i.Value.String()))
	}
	return strings.Join(items, " ")
}

// testRights reads a metric, and the server's own /metrics, as several users.
func testRights(t *testing.T, p *playground.Playground) {
	const metric = api + "/namespaces/" + playground.Namespace + "/celery_queue_tasks"
	hpa := "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
	eventually.Holds(t, patience, "celery-hpa to be ready", func() bool {
		config, err := p.Cluster.ConfigFor("somebody")
		if err != nil {
			t.Fatal(err)
		}
		config.Host = p.Address()
		_, err = get(t, config, "/readyz")
		return err == nil
	})
	for _, c := range []struct {
		rule, user string
		path       string
		direct     bool // to celery-hpa itself, without the aggregator
		may        bool
	}{
		{"the HPA reads metrics", hpa, metric, false, true},
		{"a user without rights does not", "somebody", metric, false, false},
		{"nor past the aggregator", "somebody", metric, true, false},
		{"nor the Prometheus metrics", "somebody", "/metrics", true, false},
		{"health is for everybody", "somebody", "/readyz", true, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			config, err := p.Cluster.ConfigFor(c.user)
			if err != nil {
				t.Fatal(err)
			}
			if c.direct {
				config.Host = p.Address()
			}
			if _, err := get(t, config, c.path); c.may != (err == nil) || !c.may && !apierrors.IsForbidden(err) {
				t.Errorf("GET %s as %s: %v; allowed is %v", c.path, c.user, err, c.may)
			}
		})
	}
}

func get(t *testing.T, config *rest.Config, path string) ([]byte, error) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients.Discovery().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
}

// wanted is spec.replicas of a Deployment.
func wanted(object runtime.Object) int32 {
	if d, ok := object.(*appsv1.Deployment); ok {
		return *d.Spec.Replicas
	}
	return -1
}
