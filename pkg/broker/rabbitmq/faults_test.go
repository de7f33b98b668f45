package rabbitmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// patience bounds every wait of these tests; none depends on its length.
const patience = 60 * time.Second

// await samples until what is wanted is so.
func await(t *testing.T, d brokertest.Driver, what string, wanted func(*queue.Sample, error) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s, err := d.Sample(t.Context())
		if wanted(s, err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s; the last sample is %+v, %v", what, s, err)
		}
	}
}

// TestFaults runs on one server, each test in a virtual host of its own, with a
// queue "celery" of two waiting messages and one in flight.
func TestFaults(t *testing.T) {
	server := servers.StartRabbitMQ(t, servers.RabbitMQOptions{QuorumTick: tick})
	for name, test := range map[string]func(t *testing.T, b *celeryBroker){
		"a virtual host that does not exist":                  otherVirtualHost,
		"a queue that the broker never had is unknown":        neverHad,
		"each missing right is named":                         missingRights,
		"the tag is taken away and given back":                tagTakenAway,
		"the management plugin is switched off and on":        pluginOff,
		"answers that are none of the management API's":       otherAnswers,
		"numbers that are missing, negative or no numbers":    badNumbers,
		"a management API that is slow delays no backlog":     slowManagement,
		"a message that leaves the queue is never missed":     leftBetween,
		"a cluster that is renamed":                           renamed,
		"a quorum queue without a leader is unknown":          leaderless,
		"a node out of memory is read":                        outOfMemory,
		"a second server that answers where the first is not": failover,
		"sampling makes nothing on the broker":                makesNothing,
		"only queues that workers share are found":            sharedQueues,
		"delayed messages are counted apart":                  delayed,
		"names that need encoding":                            encodedNames,
		"counts say since when they hold":                     ages,
		"there is one connection, with a name":                oneConnection,
		"a limit of connections is named":                     limited,
		"a broker whose queues cannot be found says so once":  notFound,
		"an answer without the name of a cluster":             noClusterName,
	} {
		t.Run(name, func(t *testing.T) {
			b := startCelery(t, server, nil)
			b.Publish(t, "celery", make([]brokertest.Message, 3)...)
			b.Take(t, "celery", 1)
			test(t, b)
		})
	}
}

// usual is what the queue of every test holds.
func usual() map[string]brokertest.Counts {
	return map[string]brokertest.Counts{"celery": {Backlog: 2, InFlight: 1}}
}

// withURL is a driver for another URL.
func (b *celeryBroker) withURL(t *testing.T, url string, queues ...string) *rabbitmq.Driver {
	t.Helper()
	cfg := b.cfg
	cfg.URL, cfg.Queues = url, queues
	return newDriver(t, cfg)
}

func otherVirtualHost(t *testing.T, b *celeryBroker) {
	d := b.withURL(t, b.UserURL(driverUser, brokertest.Secret, "a/b c"), "celery")
	brokertest.ExpectError(t, d, "ns/broker", `vhost "a/b c"`, "not found", "set_permissions")
}

// A virtual host that is there and is not the workers' has none of the queues.
func neverHad(t *testing.T, b *celeryBroker) {
	empty := startCelery(t, b.RabbitMQ, nil)
	d := empty.NewDriver(t, brokertest.RightPassword, "celery")
	checkUnknown(t, d, "celery", `no queue "celery"`, empty.vhost, "misspelt")
	empty.Publish(t, "celery", brokertest.Message{})
	brokertest.Expect(t, empty, d, map[string]brokertest.Counts{"celery": {Backlog: 1}})
}

// checkUnknown fails the test unless every count of the queue is unknown.
func checkUnknown(t *testing.T, d brokertest.Driver, name string, words ...string) {
	t.Helper()
	s, err := d.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	depth := s.Queues[name]
	for _, c := range []queue.Count{depth.Backlog, depth.InFlight, depth.Scheduled, depth.Tasks()} {
		brokertest.CheckText(t, c.Err, words...)
	}
}

// checkPart fails the test unless the backlog is known and what is in flight is
// not, for the reason given.
func checkPart(t *testing.T, s *queue.Sample, words ...string) {
	t.Helper()
	depth := s.Queues["celery"]
	if depth.Backlog.Err != nil || depth.Backlog.N != 2 {
		t.Errorf("the backlog is %+v, want 2", depth.Backlog)
	}
	for _, err := range []error{depth.InFlight.Err, depth.Scheduled.Err, depth.Tasks().Err, s.Degraded} {
		brokertest.CheckText(t, err, words...)
	}
}

func missingRights(t *testing.T, b *celeryBroker) {
	other := startCelery(t, b.RabbitMQ, nil)
	for _, user := range []struct {
		name  string
		tags  []string
		vhost string
	}{
		{"no-tag", nil, b.vhost}, {"no-vhost", []string{"management"}, other.vhost}, {"monitoring-only", []string{"monitoring"}, other.vhost},
	} {
		b.SetUser(t, user.name, brokertest.Secret, user.tags...)
		b.RabbitMQ.Allow(t, user.name, user.vhost)
	}
	s, err := b.withURL(t, b.UserURL("no-tag", brokertest.Secret, b.vhost), "celery").Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkPart(t, s, "401", b.ManagementURL(), "needs the tag management", "set_user_tags")
	brokertest.ExpectError(t, b.withURL(t, b.UserURL("no-tag", brokertest.Secret, b.vhost)), "spec.queues", "needs the tag management")
	for _, name := range []string{"no-vhost", "monitoring-only"} {
		d := b.withURL(t, b.UserURL(name, brokertest.Secret, b.vhost), "celery")
		brokertest.ExpectError(t, d, "access to vhost", "refused", "set_permissions")
	}
	cfg := b.cfg
	cfg.URL, cfg.Queues = b.UserURL(driverUser, brokertest.Secret, b.vhost), []string{"celery"}
	cfg.ManagementUsername, cfg.ManagementPassword = "no-vhost", brokertest.Secret
	if s, err = newDriver(t, cfg).Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkPart(t, s, "401", "needs a permission for the virtual host")
	cfg.ManagementPassword = brokertest.Secret + "x"
	if s, err = newDriver(t, cfg).Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkPart(t, s, "401", "password must be right")
	cfg.ManagementUsername, cfg.ManagementPassword = "monitoring-only", brokertest.Secret
	if s, err = newDriver(t, cfg).Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkPart(t, s, "401", "needs a permission for the virtual host")
}

// A right that is taken away is no hiccup: the last list is not used any more.
func tagTakenAway(t *testing.T, b *celeryBroker) {
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	brokertest.Expect(t, b, d, usual())
	b.SetUser(t, driverUser, brokertest.Secret)
	await(t, d, "the refusal", func(s *queue.Sample, err error) bool {
		if err != nil || s.Degraded == nil {
			brokertest.Expect(t, b, d, usual())
			return false
		}
		checkPart(t, s, "needs the tag management")
		return true
	})
	b.SetUser(t, driverUser, brokertest.Secret, "management")
	brokertest.Expect(t, b, d, usual())
}

// The last list is used while it is young enough.
func pluginOff(t *testing.T, b *celeryBroker) {
	b.cfg.MaxAge = time.Second
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, usual())
	b.DisableManagement(t)
	await(t, d, "the list to be too old", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		if s.Queues["celery"].InFlight.Err == nil {
			return false
		}
		checkPart(t, s, b.ManagementURL(), "is the server running at this address?")
		return true
	})
	b.EnableManagement(t)
	brokertest.Expect(t, b, d, usual())
}

func otherAnswers(t *testing.T, b *celeryBroker) {
	many := "[" + strings.Repeat(`{"name":"`+strings.Repeat("q", 200)+`"},`, 50_000) + `{"name":"celery","messages_ready":2,"messages_unacknowledged":1,"type":"classic"}]`
	endless := `[{"name":"` + strings.Repeat("q", 33<<20) + `"}]`
	for name, c := range map[string]struct {
		spoil func(answer) error
		want  string
	}{
		"a log-in page":          {replaced(200, "text/html; charset=utf-8", "<html>"), `answers with "text/html" instead of JSON`},
		"a redirection":          {replaced(302, "text/html", ""), "rabbitmq.managementURL"},
		"HTML that is said JSON": {replaced(200, "application/json", "<html>"), "is this the management API of RabbitMQ?"},
		"an object":              {replaced(200, "application/json", `{"status":"ok"}`), "not a list of queues"},
		"a string":               {replaced(200, "application/json", `"ok"`), "not a list of queues"},
		"nothing":                {replaced(200, "application/json", ""), "ends in the middle"},
		"half of it":             {cut, "ends in the middle"},
		"no end":                 {replaced(200, "application/json", endless), "more than 32 MiB"},
		"an error of a proxy":    {replaced(503, "text/html", "<html>"), "503 Service Unavailable"},
		"not found":              {replaced(404, "application/json", `{"error":"Object Not Found","reason":"Not Found"}`), "rabbitmq.managementURL"},
		"10 MB of queues":        {replaced(200, "application/json", many), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSpoiler(t, b.ManagementURL())
			s.set(c.spoil)
			b.cfg.ManagementURL, b.cfg.Timeout = s.URL, patience
			d := b.NewDriver(t, brokertest.RightPassword, "celery")
			await(t, d, "the answer", func(sample *queue.Sample, err error) bool {
				if err != nil {
					t.Fatal(err)
				}
				_, open := sample.Queues["celery"]
				waiting := sample.Queues["celery"].InFlight.Err != nil && strings.Contains(sample.Queues["celery"].InFlight.Err.Error(), "has not answered yet")
				if open && !waiting && c.want != "" {
					checkPart(t, sample, c.want, s.URL)
				}
				return open && !waiting
			})
			s.set(nil)
			brokertest.Expect(t, b, d, usual())
		})
	}
}

func badNumbers(t *testing.T, b *celeryBroker) {
	b.Publish(t, "other", brokertest.Message{})
	s := startSpoiler(t, b.ManagementURL())
	b.cfg.ManagementURL = s.URL
	good := `"messages_unacknowledged":1`
	for name, bad := range map[string]string{
		"missing": `"x":1`, "negative": `"messages_unacknowledged":-1`, "not a number": `"messages_unacknowledged":"NaN"`,
		"null": `"messages_unacknowledged":null`, "a fraction": `"messages_unacknowledged":0.5`,
		"huge": `"messages_unacknowledged":99999999999999999999`, "an object": `"messages_unacknowledged":{"a":[1]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s.set(edited(good, bad))
			d := b.NewDriver(t, brokertest.RightPassword)
			brokertest.Expect(t, b, d, map[string]brokertest.Counts{"other": {Backlog: 1}})
			sample, err := d.Sample(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c := sample.Queues["celery"].Backlog; c.Err != nil || c.N != 2 {
				t.Errorf("the backlog is %+v, want 2", c)
			}
			brokertest.CheckText(t, sample.Queues["celery"].InFlight.Err, `"celery"`, "gives no number")
		})
	}
	t.Run("a queue of wrong types", func(t *testing.T) {
		s.set(edited(`"exclusive":false,"messages_ready":2`, `"exclusive":"perhaps","messages_ready":2`))
		d := b.NewDriver(t, brokertest.RightPassword)
		brokertest.Expect(t, b, d, map[string]brokertest.Counts{"other": {Backlog: 1}})
		checkUnknown(t, d, "celery", "exclusive of the wrong type")
	})
}

// While a list is under way, samples go on with the one before.
func slowManagement(t *testing.T, b *celeryBroker) {
	s := startSpoiler(t, b.ManagementURL())
	b.cfg.ManagementURL = s.URL
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	brokertest.Expect(t, b, d, usual())
	until, letGo := context.WithCancel(t.Context())
	s.set(held(until))
	b.Publish(t, "celery", brokertest.Message{})
	await(t, d, "the backlog without a list", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		return s.Queues["celery"].Backlog.N == 3 && s.Queues["celery"].InFlight.N == 1
	})
	letGo()
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {Backlog: 3, InFlight: 1}})
}

// Between the list and the answers a worker takes what waits.
func leftBetween(t *testing.T, b *celeryBroker) {
	s := startSpoiler(t, b.ManagementURL())
	b.cfg.ManagementURL = s.URL
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	brokertest.Expect(t, b, d, usual())
	took := false
	s.set(func(answer) error {
		if !took {
			took = true
			b.Take(t, "celery", 2)
		}
		return nil
	})
	await(t, d, "the messages to be taken", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		depth := s.Queues["celery"]
		if tasks := depth.Tasks(); tasks.Err != nil || tasks.N != 3 {
			t.Fatalf("the queue is %+v, want 3 tasks", depth)
		}
		return depth.Backlog.N == 0
	})
}

// A connection knows the name that the cluster had when it was made. It is made
// anew before anybody is told that the management API is another cluster's.
func renamed(t *testing.T, b *celeryBroker) {
	s := startSpoiler(t, b.ManagementURL())
	b.cfg.ManagementURL = s.URL
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	brokertest.Expect(t, b, d, usual())
	var before struct{ Name string }
	if err := json.Unmarshal(b.API(t, http.MethodGet, "/cluster-name", nil), &before); err != nil {
		t.Fatal(err)
	}
	b.Control(t, "set_cluster_name", "another")
	t.Cleanup(func() { b.Control(t, "set_cluster_name", before.Name) })
	s.set(replaced(503, "text/plain", "")) // after which the cluster is looked at again
	await(t, d, "the fault", func(s *queue.Sample, err error) bool { return err == nil && s.Degraded != nil })
	s.set(nil)
	await(t, d, "the new name to be noticed", func(s *queue.Sample, err error) bool {
		return err == nil && s.Degraded != nil && strings.Contains(s.Degraded.Error(), `is of cluster "another"`)
	})
	brokertest.Expect(t, b, d, usual())
}

// Such a queue answers 0 over AMQP and in the list.
func leaderless(t *testing.T, b *celeryBroker) {
	b.arguments = amqp.Table{"x-queue-type": "quorum"}
	b.Publish(t, "quorum", make([]brokertest.Message, 3)...)
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"quorum": {Backlog: 3}})
	leader := strings.TrimSpace(b.Control(t, "eval", fmt.Sprintf(
		`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"quorum">>)), amqqueue:get_pid(Q).`, b.vhost)))
	b.Control(t, "eval", fmt.Sprintf("ra:stop_server(quorum_queues, %s).", leader))
	await(t, d, "the queue to be unknown", func(s *queue.Sample, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		return s.Queues["quorum"].Backlog.Err != nil
	})
	checkUnknown(t, d, "quorum", `"quorum" is down`, "cannot be counted")
	brokertest.Expect(t, b, d, usual())
	b.Control(t, "eval", fmt.Sprintf("ra:restart_server(quorum_queues, %s).", leader))
	brokertest.Expect(t, b, d, map[string]brokertest.Counts{"quorum": {Backlog: 3}})
}

// A broker short of memory blocks publishers, not who reads.
func outOfMemory(t *testing.T, b *celeryBroker) {
	d := b.NewDriver(t, brokertest.RightPassword, "celery")
	b.Control(t, "set_vm_memory_high_watermark", "absolute", "1MB")
	defer b.Control(t, "set_vm_memory_high_watermark", "0.9")
	if alarms := b.Control(t, "eval", "rabbit_alarm:get_alarms()."); !strings.Contains(alarms, "memory") {
		t.Fatalf("the broker has the alarms %s, want one of its memory", alarms)
	}
	brokertest.Expect(t, b, d, usual())
	brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword), usual())
}

func failover(t *testing.T, b *celeryBroker) {
	good := b.UserURL(driverUser, brokertest.Secret, b.vhost)
	for _, url := range []string{"amqp://127.0.0.1:1;" + good, good + ";amqp://127.0.0.1:1", good + "?login_method=AMQPLAIN"} {
		brokertest.Expect(t, b, b.withURL(t, url, "celery"), usual())
	}
	brokertest.ExpectError(t, b.withURL(t, "amqp://127.0.0.1:1;amqp://127.0.0.1:2", "celery"), "127.0.0.1:1", "127.0.0.1:2", "connection refused")
}

func makesNothing(t *testing.T, b *celeryBroker) {
	definitions := func() string {
		return string(b.API(t, http.MethodGet, "/definitions/"+url.PathEscape(b.vhost), nil))
	}
	before := definitions()
	d := b.NewDriver(t, brokertest.RightPassword, "celery", "typo")
	for range 5 {
		brokertest.Expect(t, b, d, usual())
		brokertest.Expect(t, b, b.NewDriver(t, brokertest.RightPassword), usual())
	}
	if after := definitions(); after != before {
		t.Errorf("sampling has changed\n%s\nto\n%s", before, after)
	}
}

func sharedQueues(t *testing.T, b *celeryBroker) {
	for name, args := range map[string]amqp.Table{
		"a stream": {"x-queue-type": "stream"}, "5fa1b3e4-7a5c-4d57-8d64-2f6b1f3a9c55": nil,
	} {
		_, err := b.worker.QueueDeclare(name, true, false, false, false, args)
		check(t, err)
	}
	_, err := b.worker.QueueDeclare("", false, true, true, false, nil)
	check(t, err)
	_, err = b.worker.QueueDeclare("exclusive", false, true, true, false, nil)
	check(t, err)
	d := b.NewDriver(t, brokertest.RightPassword)
	brokertest.Expect(t, b, d, usual())
	s, err := d.Sample(t.Context())
	if err != nil || len(s.Queues) != 1 {
		t.Errorf("the queues are %+v (%v), want celery alone", s.Queues, err)
	}
}

func delayed(t *testing.T, b *celeryBroker) {
	for _, name := range []string{"celery_delayed_0", "celery_delayed_27", "app_celery_delayed_3"} {
		b.Publish(t, name, make([]brokertest.Message, 2)...)
	}
	b.Publish(t, "celery_delayed_28", brokertest.Message{})
	b.Take(t, "celery_delayed_0", 1)
	for _, d := range []brokertest.Driver{b.NewDriver(t, brokertest.RightPassword), b.NewDriver(t, brokertest.RightPassword, "celery", "celery_delayed_28")} {
		brokertest.Expect(t, b, d, map[string]brokertest.Counts{"celery": {Backlog: 2, InFlight: 1}, "celery_delayed_28": {Backlog: 1}})
		s, err := d.Sample(t.Context())
		if err != nil || len(s.Queues) != 2 {
			t.Fatalf("the queues are %+v (%v), want 2", s.Queues, err)
		}
		if s.Delayed == nil || s.Delayed.Err != nil || s.Delayed.N != 6 {
			t.Errorf("%+v messages are delayed, want 6", s.Delayed)
		}
	}
}

// encodedNames is about the path of the management API: see the contract for names
// of queues.
func encodedNames(t *testing.T, b *celeryBroker) {
	for _, vhost := range []string{"a/b", "%2F", "with space", "日本語", "a?b#c", "a%00b"} {
		v := *b
		v.vhost = vhost
		v.AddVhost(t, vhost)
		v.RabbitMQ.Allow(t, driverUser, vhost)
		v.connect(t)
		v.Publish(t, "%2F", make([]brokertest.Message, 2)...)
		v.Take(t, "%2F", 1)
		want := map[string]brokertest.Counts{"%2F": {Backlog: 1, InFlight: 1}}
		brokertest.Expect(t, &v, v.NewDriver(t, brokertest.RightPassword), want)
		brokertest.Expect(t, &v, v.NewDriver(t, brokertest.RightPassword, "%2F"), want)
		v.DeleteVhost(t, vhost)
		_ = v.link.Close()
	}
}

// The numbers of a quorum queue may be as old as it tells them seldom: every 5 s,
// unless it is said to tell them more often.
func ages(t *testing.T, b *celeryBroker) {
	b.arguments = amqp.Table{"x-queue-type": "quorum"}
	b.Publish(t, "quorum", brokertest.Message{})
	for said, lag := range map[time.Duration]time.Duration{0: 5 * time.Second, 2 * time.Second: 2 * time.Second} {
		b.cfg.QuorumTick = said
		d := b.NewDriver(t, brokertest.RightPassword)
		brokertest.Expect(t, b, d, map[string]brokertest.Counts{"quorum": {Backlog: 1}})
		s, err := d.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkAge(t, "backlog, classic", s.At.Sub(s.Queues["celery"].Backlog.At), 0, 0)
		checkAge(t, "backlog, quorum", s.At.Sub(s.Queues["quorum"].Backlog.At), 0, 0)
		checkAge(t, "in flight, classic", s.At.Sub(s.Queues["celery"].InFlight.At), 0, brokertest.Timeout)
		checkAge(t, "in flight, quorum", s.At.Sub(s.Queues["quorum"].InFlight.At), lag, lag+brokertest.Timeout)
		checkAge(t, "tasks, quorum", s.At.Sub(s.Queues["quorum"].Tasks().At), lag, lag+brokertest.Timeout)
	}
}

// checkAge fails the test unless a count is between so old and so old at the time
// of its sample.
func checkAge(t *testing.T, what string, age, least, most time.Duration) {
	t.Helper()
	if age < least || age > most {
		t.Errorf("%s: %s old, want %s to %s", what, age, least, most)
	}
}

func oneConnection(t *testing.T, b *celeryBroker) {
	d := b.NewDriver(t, brokertest.RightPassword)
	await(t, d, "the connection to be shown, some seconds late", func(*queue.Sample, error) bool {
		var ours []connection
		for _, c := range b.connections(t) {
			if c.User == driverUser {
				ours = append(ours, c)
			}
		}
		if len(ours) > 1 {
			t.Fatalf("the driver has the connections %+v, want one", ours)
		}
		return len(ours) == 1 && ours[0].Properties.Name == "celery-hpa" && ours[0].Timeout == 10 // the heartbeat
	})
}

func limited(t *testing.T, b *celeryBroker) {
	b.API(t, http.MethodPut, "/vhost-limits/"+url.PathEscape(b.vhost)+"/max-connections", map[string]any{"value": 1})
	brokertest.ExpectError(t, b.NewDriver(t, brokertest.RightPassword, "celery"), "limit", "raise the limit")
}

func notFound(t *testing.T, b *celeryBroker) {
	b.cfg.ManagementURL = "http://127.0.0.1:1"
	_, err := b.NewDriver(t, brokertest.RightPassword).Sample(t.Context())
	brokertest.CheckText(t, err, "spec.queues", "http://127.0.0.1:1", "connection refused")
	if n := strings.Count(err.Error(), "is the server running at this address?"); n != 1 {
		t.Errorf("the advice is given %d times, want once: %v", n, err)
	}
}

func noClusterName(t *testing.T, b *celeryBroker) {
	s := startSpoiler(t, b.ManagementURL())
	s.path = "/api/cluster-name"
	s.set(replaced(200, "application/json", "<html>"))
	b.cfg.ManagementURL = s.URL
	sample, err := b.NewDriver(t, brokertest.RightPassword, "celery").Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkPart(t, sample, s.URL, "cluster's name", "is this the management API of RabbitMQ?")
}
