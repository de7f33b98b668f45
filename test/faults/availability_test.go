package faults_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// A broker that is gone or silent: the last counts while they are young, then an
// error that says which broker and why, and at no moment anything else.
func TestBrokerThatDoesNotAnswer(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(*servers.Redis, testing.TB)
		cause      string
	}{
		"stopped": {(*servers.Redis).Stop, (*servers.Redis).Start, "is the server running at this address?"},
		"paused":  {(*servers.Redis).Pause, (*servers.Redis).Resume, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servers.StartRedis(t, servers.RedisOptions{Password: "hunter2"})
			publish(t, server, "celery", 5)
			p := run(t, document("default", "prod", "url: {file: url}, "+shortly), map[string]string{"url": server.URL(0)})
			p.hides(t, "hunter2")
			p.awaitTasks(t, "celery", "5")

			w := p.watchTasks(t, "celery")
			fault.begin(server, t)
			p.awaitError(t, "celery", "broker default/prod", "over the maximum age of 2s", server.Address(), fault.cause)
			answers := w.end()
			checkOnly(t, answers, "prod/celery", "5")
			checkAges(t, answers, 2*time.Second)
			checkOrder(t, answers)
			p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 0`)
			p.checkHealth(t, "/readyz", http.StatusOK)
			p.checkHealth(t, "/livez", http.StatusOK)

			w = p.watchTasks(t, "celery")
			fault.end(server, t)
			p.awaitTasks(t, "celery", "5")
			checkOnly(t, w.end(), "prod/celery", "5")
			p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 1`)
		})
	}
}

func TestLastCountsAreServedWhileTheyAreYoung(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+often), nil)
	p.awaitTasks(t, "celery", "5")
	server.Stop(t)
	p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 0`)
	if a := p.tasks("celery"); !a.is("prod/celery", "5") {
		t.Errorf("the answer is %s, want the last value", a)
	}
	p.awaitMetric(t, `celery_queue_tasks{broker="prod",namespace="default",queue="celery"} 5`)
}

func TestOldCountsHaveNoSeries(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+shortly), nil)
	p.awaitMetric(t, `celery_queue_tasks{broker="prod",namespace="default",queue="celery"} 5`)
	server.Stop(t)
	await(t, "no series", p.metrics, func(a answer) bool { return !hasSeries(a.Message, "celery_queue_") })
}

func TestBrokerThatReturnsWithoutItsData(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+often), nil)
	p.awaitTasks(t, "celery", "5")
	server.Stop(t)
	server.DropData(t)
	p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 0`)
	server.Start(t)
	// The queue was known before, so that its missing list is a zero.
	p.awaitTasks(t, "celery", "0")
}

func TestProgramThatStartsBeforeItsBroker(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	server.Stop(t)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+often), nil)
	p.awaitError(t, "celery", "broker default/prod has not been sampled yet", server.Address(), "is the server running at this address?")
	p.checkHealth(t, "/readyz", http.StatusOK)
	w := p.watchTasks(t, "celery")
	server.Start(t)
	p.awaitTasks(t, "celery", "5")
	checkOnly(t, w.end(), "prod/celery", "5")
}

// What no broker has shown yet is an error even if it is declared.
func TestDeclaredQueueOfABrokerThatWasNeverSampled(t *testing.T) {
	t.Parallel()
	p := run(t, document("default", "prod", atURL("redis://127.0.0.1:1")+", queues: [{name: celery}], "+often), nil)
	p.awaitError(t, "celery", "broker default/prod has not been sampled yet", "127.0.0.1:1")
	if a := p.tasks("celary"); !a.says(http.StatusNotFound, `no queue`) && !a.says(http.StatusNotFound, `a queue "celary"`, "celery") {
		t.Errorf("a queue that is not declared: %s, want not found", a)
	}
}

func TestOneBrokerHarmsNoOther(t *testing.T) {
	t.Parallel()
	good, bad := servers.StartRedis(t, servers.RedisOptions{}), servers.StartRedis(t, servers.RedisOptions{})
	publish(t, good, "celery", 3)
	publish(t, bad, "celery", 4)
	p := run(t, document("default", "prod", atURL(good.URL(0))+", "+often)+document("default", "stage", atURL(bad.URL(0))+", "+shortly)+
		document("default", "nowhere", "url: {file: missing}"), nil)
	ofBoth := func() answer {
		return p.ask("default", "celery_queue_tasks", "queue=celery,broker in (prod, stage)")
	}
	await(t, "both brokers", ofBoth, func(a answer) bool { return a.Values["prod/celery"] == "3" && a.Values["stage/celery"] == "4" })
	bad.Pause(t)
	// A sum of which one part is unknown is unknown.
	await(t, "an error of the sum", ofBoth, func(a answer) bool { return a.says(http.StatusServiceUnavailable, "default/stage") })
	publish(t, good, "celery", 1)
	await(t, "fresh counts of the good broker",
		func() answer { return p.ask("default", "celery_queue_tasks", "queue=celery,broker=prod") },
		func(a answer) bool { return a.is("prod/celery", "4") })
	await(t, "the reason of the broker without a URL",
		func() answer { return p.ask("default", "celery_queue_tasks", "queue=celery,broker=nowhere") },
		func(a answer) bool {
			return a.says(http.StatusServiceUnavailable, "default/nowhere", "spec.url.file", "no such file or directory")
		})
	p.checkHealth(t, "/livez", http.StatusOK)
	bad.Resume(t)
	await(t, "both brokers again", ofBoth, func(a answer) bool { return a.Values["prod/celery"] == "4" && a.Values["stage/celery"] == "4" })
}

func TestServerThatRefusesConnections(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+shortly), nil)
	p.awaitTasks(t, "celery", "5")
	w := p.watchTasks(t, "celery")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.ConfigSet(ctx, "maxclients", "1")
		p.Do(ctx, "client", "kill", "type", "normal", "skipme", "yes")
	})
	p.awaitError(t, "celery", "broker default/prod", server.Address())
	checkOnly(t, w.end(), "prod/celery", "5")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.ConfigSet(ctx, "maxclients", "100") })
	p.awaitTasks(t, "celery", "5")
}

func TestReplicaThatHasLostItsPrimary(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", atURL(server.URL(0))+", "+shortly), nil)
	p.awaitTasks(t, "celery", "5")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.ReplicaOf(ctx, "127.0.0.1", "1") })
	p.awaitError(t, "celery", "broker default/prod", "lost its primary")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.ReplicaOf(ctx, "no", "one") })
	p.awaitTasks(t, "celery", "5")
}
