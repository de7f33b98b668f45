package rabbitmq_test

import (
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

func TestAgeOfTheOldestMessageIsKnownWhileNobodyTakes(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{})
	b := startCelery(t, server, map[string]any{})
	app := b.app(t, servers.CeleryQueue{Name: "work", Arguments: map[string]any{}})
	d := b.NewDriver(t, brokertest.RightPassword)
	oldest := func() queue.Count {
		s, err := d.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Queues["work"].Oldest
	}
	sent := time.Now()
	app.Publish(t, servers.CeleryTask{N: 3, Queue: "work", Gate: "gate"})
	eventually.Holds(t, patience, "an age", func() bool {
		age := oldest()
		if age.Err == nil && time.Duration(age.N)*time.Millisecond > time.Since(sent) {
			t.Fatalf("a message sent %s ago is said to wait for %d ms", time.Since(sent), age.N)
		}
		return age.Err == nil && age.N >= 50
	})
	worker := app.StartWorker(t, servers.WorkerOptions{Concurrency: 1, LateAck: true, Prefetch: 1})
	if age := oldest(); age.Err == nil {
		t.Errorf("with a consumer the oldest message is said to wait for %d ms", age.N)
	}
	killed := time.Now()
	worker.Kill()
	eventually.Holds(t, patience, "an age after the worker's death", func() bool {
		age := oldest()
		if age.Err == nil && time.Duration(age.N)*time.Millisecond > time.Since(killed) {
			t.Fatalf("%s after its consumer's death the oldest message is said to be untaken for %d ms", time.Since(killed), age.N)
		}
		return age.Err == nil && age.N >= 50
	})
}
