package redis_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// driverUser is the user of the drivers, with the least permissions.
const driverUser = "driver"

// aclRules are the permissions that the driver asks for in its errors.
const aclRules = "~* -@all +multi +exec +llen +lindex +exists +hlen +zcard +zrange +hstrlen +hmget +scan +smembers"

// kombuBroker does to a real Redis what kombu does.
type kombuBroker struct {
	*servers.Redis
	keys celery.Keys
	cfg  redis.Config
}

// delivery is a message of kombu's that a worker holds.
type delivery struct {
	tag   string
	queue string
	// text is the message as it stood in the list.
	text string
	list string
}

func startKombu(t testing.TB, cfg redis.Config) *kombuBroker {
	t.Helper()
	server := servers.StartRedis(t, servers.RedisOptions{
		Users:      []string{fmt.Sprintf("%s on >%s %s", driverUser, brokertest.Secret, aclRules)},
		Directives: []string{"enable-debug-command local"},
	})
	return newKombu(server, cfg)
}

func newKombu(server *servers.Redis, cfg redis.Config) *kombuBroker {
	cfg.Ref = queue.BrokerRef{Namespace: "ns", Name: "broker"}
	cfg.Timeout = brokertest.Timeout
	return &kombuBroker{
		Redis: server, cfg: cfg,
		keys: celery.NewKeys(cfg.GlobalKeyPrefix, cfg.Separator, cfg.UnackedKey, cfg.UnackedIndexKey),
	}
}

func (b *kombuBroker) Traits() brokertest.Traits { return brokertest.Traits{} }

func (b *kombuBroker) NewDriver(t testing.TB, access brokertest.Access, queues ...string) brokertest.Driver {
	t.Helper()
	password := brokertest.Secret
	if access == brokertest.WrongPassword {
		password += "x"
	}
	cfg := b.cfg
	cfg.URL = fmt.Sprintf("redis://%s:%s@%s/0", driverUser, url.QueryEscape(password), b.Address())
	cfg.Queues = queues
	return newDriver(t, cfg)
}

func newDriver(t testing.TB, cfg redis.Config) *redis.Driver {
	t.Helper()
	d, err := redis.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// do runs commands in one transaction and fails the test at an error.
func (b *kombuBroker) do(t testing.TB, fill func(ctx context.Context, p goredis.Pipeliner)) {
	t.Helper()
	ctx := context.Background()
	_, err := b.Admin().TxPipelined(ctx, func(p goredis.Pipeliner) error {
		fill(ctx, p)
		return nil
	})
	if err != nil {
		t.Fatalf("talk to Redis as kombu: %v", err)
	}
}

func (b *kombuBroker) Declare(t testing.TB, name string) {
	b.bind(t, name, name, "", name)
}

// bind adds a member to an exchange's binding table.
func (b *kombuBroker) bind(t testing.TB, exchange, routingKey, pattern, name string) {
	t.Helper()
	separator := b.cfg.Separator
	if separator == "" {
		separator = celery.DefaultSeparator
	}
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		p.SAdd(ctx, b.keys.Binding(exchange), routingKey+separator+pattern+separator+name)
	})
}

func (b *kombuBroker) Publish(t testing.TB, name string, messages ...brokertest.Message) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for _, m := range messages {
			p.LPush(ctx, b.keys.Queue(name, m.Priority), envelope(t, "", name, m))
		}
	})
}

// envelope is a message of protocol 2 as celery 5 and kombu 5 write it.
func envelope(t testing.TB, exchange, routingKey string, m brokertest.Message) string {
	t.Helper()
	id := uuid.NewString()
	headers := map[string]any{"lang": "py", "task": "app.work", "id": id, "eta": nil, "retries": 0}
	if !m.ETA.IsZero() {
		headers["eta"] = m.ETA.UTC().Format("2006-01-02T15:04:05.000000-07:00")
	}
	text, err := json.Marshal(map[string]any{
		"body":    base64.StdEncoding.EncodeToString([]byte(`[["argument"], {}, {"callbacks": null}]`)),
		"headers": headers, "content-type": "application/json", "content-encoding": "utf-8",
		"properties": map[string]any{
			"correlation_id": id, "delivery_mode": 2, "priority": m.Priority, "body_encoding": "base64",
			"delivery_info": map[string]any{"exchange": exchange, "routing_key": routingKey}, "delivery_tag": uuid.NewString(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (b *kombuBroker) Take(t testing.TB, name string, n int) []brokertest.Delivery {
	t.Helper()
	var taken []brokertest.Delivery
	for priority := 0; priority <= celery.MaxPriority && len(taken) < n; priority++ {
		list := b.keys.Queue(name, priority)
		texts, err := b.Admin().RPopCount(context.Background(), list, n-len(taken)).Result()
		if err != nil && err != goredis.Nil { //nolint:errorlint // go-redis returns it bare
			t.Fatalf("take from %q: %v", name, err)
		}
		for _, text := range texts {
			taken = append(taken, delivery{tagOf(t, text), name, text, list})
		}
	}
	if len(taken) != n {
		t.Fatalf("took %d messages from %q, want %d", len(taken), name, n)
	}
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for _, each := range taken {
			d := each.(delivery)
			b.hold(ctx, p, d.tag, unackedValue(t, d.text, "", name))
		}
	})
	return taken
}

// hold adds an entry of unacked and its index (kombu's QoS.append).
func (b *kombuBroker) hold(ctx context.Context, p goredis.Pipeliner, tag, value string) {
	p.ZAdd(ctx, b.keys.UnackedIndex, goredis.Z{Score: float64(time.Now().UnixMilli()) / 1000, Member: tag})
	p.HSet(ctx, b.keys.Unacked, tag, value)
}

func unackedValue(t testing.TB, message, exchange, routingKey string) string {
	t.Helper()
	value, err := json.Marshal([]any{json.RawMessage(message), exchange, routingKey})
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

func tagOf(t testing.TB, message string) string {
	t.Helper()
	var m struct {
		Properties struct {
			DeliveryTag string `json:"delivery_tag"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(message), &m); err != nil {
		t.Fatal(err)
	}
	return m.Properties.DeliveryTag
}

func (b *kombuBroker) Acknowledge(t testing.TB, deliveries ...brokertest.Delivery) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for _, each := range deliveries {
			b.release(ctx, p, each.(delivery).tag)
		}
	})
}

func (b *kombuBroker) release(ctx context.Context, p goredis.Pipeliner, tag string) {
	p.ZRem(ctx, b.keys.UnackedIndex, tag)
	p.HDel(ctx, b.keys.Unacked, tag)
}

func (b *kombuBroker) Return(t testing.TB, deliveries ...brokertest.Delivery) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for _, each := range deliveries {
			d := each.(delivery)
			b.release(ctx, p, d.tag)
			p.RPush(ctx, d.list, d.text)
		}
	})
}

func (b *kombuBroker) Purge(t testing.TB, name string) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) {
		for priority := range celery.MaxPriority + 1 {
			p.Del(ctx, b.keys.Queue(name, priority))
		}
	})
}

func (b *kombuBroker) Delete(t testing.TB, name string) {
	t.Helper()
	b.Purge(t, name)
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Del(ctx, b.keys.Binding(name)) })
}

func (b *kombuBroker) Wipe(t testing.TB) {
	t.Helper()
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.FlushAll(ctx) })
}

func (b *kombuBroker) Forbid(t testing.TB) { b.setRules(t, "resetkeys", "~other") }
func (b *kombuBroker) Allow(t testing.TB)  { b.setRules(t, "resetkeys", "~*") }

func (b *kombuBroker) setRules(t testing.TB, rules ...string) {
	t.Helper()
	args := []any{"acl", "setuser", driverUser}
	for _, rule := range rules {
		args = append(args, rule)
	}
	b.do(t, func(ctx context.Context, p goredis.Pipeliner) { p.Do(ctx, args...) })
}

// commandStats is how often the server has run a command, and how long it took.
func (b *kombuBroker) commandStats(t testing.TB, command string) (calls int64, busy time.Duration) {
	t.Helper()
	info, err := b.Admin().InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	line, ok := info["Commandstats"]["cmdstat_"+command]
	if !ok {
		return 0, 0
	}
	var microseconds int64
	if _, err := fmt.Sscanf(line, "calls=%d,usec=%d", &calls, &microseconds); err != nil {
		t.Fatalf("read %q: %v", line, err)
	}
	return calls, time.Duration(microseconds) * time.Microsecond
}
