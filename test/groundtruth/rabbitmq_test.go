package groundtruth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// tick is how often the quorum queues of these tests tell their numbers: more
// often than RabbitMQ's own 5 s, for which a test would have to wait.
const tick = 300 * time.Millisecond

// TestRabbitMQ runs on one server, whose start takes seconds.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	server := &rabbitMQ{server: servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})}
	classic := setup{rabbitMQ: server}
	quorum := setup{rabbitMQ: server, declared: quorumQueues()}
	for rule, test := range map[string]struct {
		check func(*testing.T, setup)
		setup
	}{
		"numbers are the truth while nothing moves":                   {rabbitNumbersAreTheTruth, classic},
		"every sample is within its bounds while tasks run":           {everySampleIsWithinItsBounds, classic},
		"messages are seen while a worker takes them":                 {messagesAreSeenWhileAWorkerTakesThem, classic},
		"messages are seen while a worker takes them, quorum":         {messagesAreSeenWhileAWorkerTakesThem, quorum},
		"tasks with an ETA that workers hold are work":                {etaIsWork, classic},
		"tasks with an ETA that the broker holds are delayed":         {etaIsDelayed, quorum},
		"served metrics are the truth":                                {servedMetricsAreTheTruth, classic},
		"times are the truth":                                         {timesAreTheTruth, classic},
		"a warm shutdown loses no task from sight":                    {warmShutdowns, classic},
		"tasks of a killed worker are backlog":                        {killedWorker, classic},
		"tasks of a killed worker are backlog, quorum":                {killedWorker, quorum},
		"a purged queue is known and holds what workers hold":         {purgedQueue, classic},
		"a purged queue is known and holds what workers hold, quorum": {purgedQueue, quorum},
		"deleted queues are known and empty":                          {deletedQueues, classic},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			test.check(t, test.setup)
		})
	}
}

// rabbitMQ is a server that many installations share, each with a virtual host of
// its own. It is safe for concurrent use.
type rabbitMQ struct {
	mu     sync.Mutex
	server *servers.RabbitMQ
	vhosts int
}

// addVhost makes a virtual host and returns its name. It is deleted when the test
// ends: quorum queues are work for the server even if nobody uses them.
func (r *rabbitMQ) addVhost(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vhosts++
	name := fmt.Sprintf("truth/%d", r.vhosts)
	r.server.AddVhost(t, name)
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.server.DeleteVhost(t, name)
	})
	return name
}

// deleteQueue deletes a queue with all that is in it.
func (r *rabbitMQ) deleteQueue(t *testing.T, vhost, name string) {
	t.Helper()
	r.api(t, http.MethodDelete, "/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(name))
}

// hasQueue is whether a queue is declared.
func (r *rabbitMQ) hasQueue(t *testing.T, vhost, name string) bool {
	t.Helper()
	var queues []struct{ Name string }
	if err := json.Unmarshal(r.api(t, http.MethodGet, "/queues/"+url.PathEscape(vhost)), &queues); err != nil {
		t.Fatal(err)
	}
	return slices.Contains(queues, struct{ Name string }{name})
}

func (r *rabbitMQ) api(t *testing.T, method, path string) []byte {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server.API(t, method, path, nil)
}

func (r *rabbitMQ) newDriver(vhost string) (*rabbitmq.Driver, error) {
	return rabbitmq.New(rabbitmq.Config{Ref: ref(), URL: r.server.URL(vhost), ManagementURL: r.server.ManagementURL(), Timeout: patience})
}

// quorumQueues makes Celery's default queue a quorum queue. Its exchange must not be a
// direct one: only then does Celery let the broker itself hold back tasks with an
// ETA (native delayed delivery).
func quorumQueues() []servers.CeleryQueue {
	return []servers.CeleryQueue{{
		Name: "celery", Exchange: "celery", ExchangeType: "topic", Arguments: map[string]any{"x-queue-type": "quorum"},
	}}
}
