package redis_test

import (
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// oldestUser may look at messages in lists.
const oldestUser = "oldest"

// waiting is a Redis with a driver that reads queue celery.
type waiting struct {
	client *goredis.Client
	driver brokertest.Driver
}

func newWaiting(t *testing.T, user string) waiting {
	t.Helper()
	server := servers.StartRedis(t, servers.RedisOptions{Users: []string{
		driverUser + " on >pw " + strings.Replace(aclRules, " +lindex", "", 1), oldestUser + " on >pw " + aclRules,
	}})
	client := goredis.NewClient(&goredis.Options{Addr: server.Address()})
	t.Cleanup(func() { _ = client.Close() })
	url := strings.Replace(server.URL(0), "redis://", "redis://"+user+":pw@", 1)
	return waiting{client, newDriver(t, redis.Config{Ref: queue.BrokerRef{Namespace: "ns", Name: "broker"}, URL: url, Queues: []string{"celery"}})}
}

func (w waiting) send(t *testing.T, key, message string) time.Time {
	t.Helper()
	if err := w.client.LPush(t.Context(), key, message).Err(); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

func (w waiting) take(t *testing.T, key string) time.Time {
	t.Helper()
	at := time.Now()
	if err := w.client.RPop(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	return at
}

func (w waiting) sample(t *testing.T) queue.Depth {
	t.Helper()
	s, err := w.driver.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Queues["celery"]
}

// await samples until the oldest message has an age, and returns it.
func (w waiting) await(t *testing.T, least time.Duration) time.Duration {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		oldest := w.sample(t).Oldest
		if age := time.Duration(oldest.N) * time.Millisecond; oldest.Err == nil && age >= least {
			return age
		}
		if time.Now().After(deadline) {
			t.Fatalf("the oldest message never had an age of %s: %d, %v", least, oldest.N, oldest.Err)
		}
	}
}

func TestAgeOfTheOldestMessageIsNeverOverstated(t *testing.T) {
	w := newWaiting(t, oldestUser)
	if oldest := w.sample(t).Oldest; oldest.Err != nil || oldest.N != 0 {
		t.Errorf("the oldest of an empty queue is %d, %v; want 0", oldest.N, oldest.Err)
	}
	sent := w.send(t, "celery", `{"body": "1"}`)
	w.send(t, "celery", `{"body": "2"}`)
	if age := w.await(t, 50*time.Millisecond); age > time.Since(sent) {
		t.Errorf("a message sent %s ago is said to wait for %s", time.Since(sent), age)
	}
	w.sample(t)
	time.Sleep(100 * time.Millisecond) // for the age of the first message to be much above the second's
	taken := w.take(t, "celery")
	if age := w.await(t, 10*time.Millisecond); age > time.Since(taken) {
		t.Errorf("a message that is the next one for %s is said to be so for %s", time.Since(taken), age)
	}
	w.take(t, "celery")
	if oldest := w.sample(t).Oldest; oldest.Err != nil || oldest.N != 0 {
		t.Errorf("the oldest of a queue that is empty again is %d, %v; want 0", oldest.N, oldest.Err)
	}
}

func TestOldestMessageMayHaveAnyPriority(t *testing.T) {
	w := newWaiting(t, oldestUser)
	sent := w.send(t, "celery\x06\x169", `{"body": "late"}`)
	w.await(t, 50*time.Millisecond)
	w.send(t, "celery", `{"body": "urgent"}`)
	if age := w.await(t, 60*time.Millisecond); age > time.Since(sent) {
		t.Errorf("a message sent %s ago is said to wait for %s", time.Since(sent), age)
	}
}

func TestMessageWithATimeIsAsOldAsItSays(t *testing.T) {
	w := newWaiting(t, oldestUser)
	sent := time.Now().Add(-time.Hour)
	w.send(t, "celery", `{"headers": {"timestamp": "`+sent.UTC().Format(time.RFC3339Nano)+`"}}`)
	if age := w.await(t, time.Minute); age < 59*time.Minute || age > time.Since(sent) {
		t.Errorf("a message sent %s ago is said to wait for %s", time.Since(sent), age)
	}
}

func TestOldestIsUnknownWithoutTheRightToLook(t *testing.T) {
	w := newWaiting(t, driverUser)
	w.send(t, "celery", `{"body": "1"}`)
	for range 3 { // the first one learns that something waits, the second that it may not look
		d := w.sample(t)
		if d.Backlog.Err != nil || d.Backlog.N != 1 || d.InFlight.Err != nil {
			t.Fatalf("backlog %d, %v, in flight %v", d.Backlog.N, d.Backlog.Err, d.InFlight.Err)
		}
	}
	if err := w.sample(t).Oldest.Err; err == nil || !strings.Contains(err.Error(), "+lindex") {
		t.Errorf("the age of the oldest message is unknown because of %v, want the right that is missing", err)
	}
}

func TestLargeMessagesAreLookedAtSeldom(t *testing.T) {
	w := newWaiting(t, oldestUser)
	w.send(t, "celery", strings.Repeat("x", 1<<20))
	for range 20 {
		w.sample(t)
	}
	stats, err := w.client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stats, "cmdstat_lindex:calls=1,") {
		t.Errorf("a message of 1 MiB was looked at more than once in 20 samples:\n%s", stats)
	}
}
