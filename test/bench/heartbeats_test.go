package bench_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

const (
	// fleetSize workers send a heartbeat each in beatPeriod, Celery's default.
	fleetSize  = 1000
	beatPeriod = 2 * time.Second
	// listenFor is how long the program is watched, with heartbeats and before
	// without.
	listenFor = 20 * time.Second
)

// BenchmarkHeartbeats is what hearing a thousand workers costs the program beyond
// being there: percent of a core, and memory.
func BenchmarkHeartbeats(b *testing.B) {
	b.Run("Redis", func(b *testing.B) {
		server := servers.StartRedis(b, servers.RedisOptions{})
		client := goredis.NewClient(&goredis.Options{Addr: server.Address()})
		b.Cleanup(func() { _ = client.Close() })
		compareHeartbeats(b, "url: {value: 'redis://"+server.Address()+"/0'}", func(event []byte) error {
			envelope, err := json.Marshal(map[string]any{
				"body": base64.StdEncoding.EncodeToString(event), "content-encoding": "utf-8", "content-type": "application/json",
				"headers": map[string]any{"hostname": "celery@worker"}, "properties": map[string]any{
					"delivery_mode": 1, "delivery_info": map[string]any{"exchange": "celeryev", "routing_key": "worker.heartbeat"},
					"priority": 0, "body_encoding": "base64", "delivery_tag": "4c1dfd2d-3ee1-4de6-9b53-2f3fdd2ae0c0",
				},
			})
			if err != nil {
				return err
			}
			return client.Publish(b.Context(), "/0.celeryev/worker.heartbeat", envelope).Err()
		})
	})
	b.Run("RabbitMQ", func(b *testing.B) {
		r := startRabbit(b, servers.RabbitMQOptions{})
		if err := r.channel.ExchangeDeclare("celeryev", amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			b.Fatal(err)
		}
		compareHeartbeats(b, r.spec(), func(event []byte) error {
			return r.channel.PublishWithContext(b.Context(), "celeryev", "worker.heartbeat", false, false, amqp.Publishing{
				ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Transient, Body: event,
			})
		})
	})
}

// compareHeartbeats runs the program without heartbeats, and then with them.
func compareHeartbeats(b *testing.B, spec string, publish func(event []byte) error) {
	b.Helper()
	pid, _ := serve(b, spec)
	time.Sleep(settle)
	idle := processorTime(b, pid)
	time.Sleep(listenFor)
	idle = processorTime(b, pid) - idle
	memory := resident(b, pid)

	beat(b, 2*beatPeriod, publish) // by which every worker is known
	hearing := processorTime(b, pid)
	beat(b, listenFor, publish)
	hearing = processorTime(b, pid) - hearing
	b.ReportMetric(100*(hearing-idle).Seconds()/listenFor.Seconds(), "core-%")
	b.ReportMetric(resident(b, pid)-memory, "MiB")
	b.ReportMetric(0, "ns/op")
}

// beat sends heartbeats evenly, whose counts change with each.
func beat(b *testing.B, length time.Duration, publish func(event []byte) error) {
	b.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	began, sent := time.Now(), 0
	for now := began; now.Sub(began) < length; now = <-ticker.C {
		for due := int(float64(now.Sub(began)) / float64(beatPeriod) * fleetSize); sent < due; sent++ {
			event := fmt.Sprintf(`{"hostname": "celery@worker-%d", "utcoffset": 0, "pid": 7, "clock": %d, "freq": 2.0, "active": %d, "processed": %d, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "py-celery", "sw_ver": "5.6.3", "sw_sys": "Linux", "timestamp": %d.5, "type": "worker-heartbeat"}`,
				sent%fleetSize, sent, sent/fleetSize%3, sent/fleetSize, now.Unix())
			if err := publish([]byte(event)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// resident is the memory of a process, in MiB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes(b, string(status), "VmRSS:") / 1024
}
