package faults_test

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// site is a broker with a Celery application, and a worker that has nothing to do.
type site struct {
	*servers.Celery
	// address is the broker's, url its URL for Celery.
	address, url string
	// own is its URL for the program, spec what else a brokers file has to say of it.
	own, spec string
	// pause and stop are the ways in which it can be gone, each with its end.
	pause, resume, stop, start func(testing.TB)
	redis                      *servers.Redis
	rabbitMQ                   *rabbit
}

// onBoth runs a test on a site of each kind. The worker does not listen to others: an
// event that makes no sense to it can end it (celery/worker/consumer/gossip.py).
func onBoth(t *testing.T, test func(*testing.T, *site)) {
	for kind, prepare := range map[string]func(*testing.T) *site{"Redis": redisSite, "RabbitMQ": rabbitMQSite} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := prepare(t)
			s.Celery = servers.NewCelery(t, servers.CeleryOptions{BrokerURL: s.url})
			s.StartWorker(t, servers.WorkerOptions{Name: "healthy", Concurrency: 1, Args: []string{"--without-gossip"}})
			s.Publish(t, servers.CeleryTask{N: 1}) // the publisher ends with this test
			test(t, s)
		})
	}
}

func redisSite(t *testing.T) *site {
	t.Helper()
	r := servers.StartRedis(t, servers.RedisOptions{Password: "hunter2"})
	return &site{
		address: r.Address(), url: r.URL(0), own: r.URL(0), spec: often,
		pause: r.Pause, resume: r.Resume, stop: r.Stop, start: r.Start, redis: r,
	}
}

// rabbitMQSite gives the program's user what it needs to hear and to ask.
func rabbitMQSite(t *testing.T) *site {
	t.Helper()
	r := startRabbit(t)
	r.API(t, http.MethodPut, "/permissions/%2F/celery-hpa", map[string]string{
		"configure": `^celery-hpa\.`, "write": `^(celery-hpa\.|celery\.pidbox$)`, "read": `^(celery-hpa\.|celeryev$)`,
	})
	return &site{
		address: r.Address(), url: r.URL("/"), own: r.UserURL("celery-hpa", "hunter2", "/"),
		spec:  fmt.Sprintf("rabbitmq: {managementURL: '%s'}, %s", r.ManagementURL(), often),
		pause: r.Pause, resume: r.Resume, stop: r.Stop, start: r.Start, rabbitMQ: r,
	}
}

// launch starts a program that hears workers.
func (s *site) launch(t *testing.T, queues string) *program {
	t.Helper()
	p := run(t, document("default", "prod", "url: {file: url}, "+queues+s.spec), map[string]string{"url": s.own})
	p.hides(t, "hunter2")
	p.awaitMetric(t, hearing)
	return p
}

// run starts a program that has heard the healthy worker.
func (s *site) run(t *testing.T, queues string) *program {
	t.Helper()
	p := s.launch(t, queues)
	p.awaitStates(t, states{"idle": 1})
	return p
}

// What /metrics has while workers are heard, and while they are not.
const (
	hearing = `celery_hpa_heartbeats_heard{broker="prod",namespace="default"} 1`
	deaf    = `celery_hpa_heartbeats_heard{broker="prod",namespace="default"} 0`
)

// states are how many workers are known to be in each state, but for those in which
// there is none.
type states map[string]int

// states reads /metrics.
func (p *program) states() states {
	_, text := p.get("/metrics")
	return statesIn(text)
}

func statesIn(text string) states {
	all := states{}
	line := regexp.MustCompile(`(?m)^celery_hpa_outside_workers\{broker="prod",namespace="default",state="(\w+)"\} (\d+)$`)
	for _, found := range line.FindAllStringSubmatch(text, -1) {
		if n, _ := strconv.Atoi(found[2]); n > 0 {
			all[found[1]] = n
		}
	}
	return all
}

// awaitStates waits until the workers are in these states.
func (p *program) awaitStates(t *testing.T, want states) {
	t.Helper()
	p.awaitStatesWith(t, math.MaxInt, want)
}

// awaitChange is awaitStates, and on the way no more are called idle than before or in
// the end.
func (p *program) awaitChange(t *testing.T, want states) {
	t.Helper()
	p.awaitStatesWith(t, max(p.states()["idle"], want["idle"]), want)
}

func (p *program) awaitStatesWith(t *testing.T, idle int, want states) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		now := p.states()
		if now["idle"] > idle {
			t.Fatalf("the workers are %v on the way to %v", now, want)
		}
		if maps.Equal(now, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the workers are %v, want %v", now, want)
		}
	}
}
