package redis_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/broker/brokertest"
	"github.com/celery-hpa/celery-hpa/pkg/broker/redis"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/test/eventually"
	"github.com/celery-hpa/celery-hpa/test/servers"
)

// ask asks, and fails the test at an error. It waits as long as a frozen worker is
// to be waited for.
func ask(t *testing.T, w *redis.Workers, method monitor.Method, wait time.Duration, nodes ...string) map[string]monitor.ControlReply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	replies, err := w.Ask(ctx, method, nodes)
	if err != nil {
		t.Fatalf("ask %v for %s: %v", nodes, method, err)
	}
	byNode := map[string]monitor.ControlReply{}
	for _, reply := range replies {
		byNode[reply.Node] = reply
	}
	if len(byNode) != len(replies) {
		t.Errorf("%d answers are of %d nodes", len(replies), len(byNode))
	}
	return byNode
}

// activeOf are the tasks that the workers say to execute.
func activeOf(t *testing.T, replies map[string]monitor.ControlReply) []monitor.ActiveTask {
	t.Helper()
	var tasks []monitor.ActiveTask
	for node, reply := range replies {
		active, err := reply.Active()
		if err != nil {
			t.Fatalf("%s: %v", node, err)
		}
		tasks = append(tasks, active...)
	}
	return tasks
}

// bothNodes are the workers of startTwo.
func bothNodes() []string { return []string{"celery@one", "celery@two"} }

// startTwo starts two workers, of which the first acknowledges early, and somebody to
// ask them. It returns the first.
func startTwo(t *testing.T, server *servers.Redis) (*servers.Celery, *servers.Worker, *redis.Workers) {
	t.Helper()
	prefix := map[string]any{"global_keyprefix": "myapp:"}
	app := servers.NewCelery(t, servers.CeleryOptions{BrokerURL: server.URL(0), Conf: map[string]any{"broker_transport_options": prefix}})
	one := app.StartWorker(t, servers.WorkerOptions{Name: "one", Concurrency: 2, Queues: []string{"fast", "slow"}})
	app.StartWorker(t, servers.WorkerOptions{Name: "two", Concurrency: 1, Queues: []string{"slow"}, LateAck: true})
	awaitControl(t, server, "myapp:/0.celery.pidbox", 2)
	return app, one, newWorkers(t, redis.Config{URL: server.URL(0), GlobalKeyPrefix: "myapp:"})
}

func TestWorkersSayWhatTheyExecuteAndServe(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	app, _, w := startTwo(t, server)
	early := app.Publish(t, servers.CeleryTask{N: 2, Queue: "fast", Gate: "gate"})
	eventually.Holds(t, patience, "the tasks of the first worker", func() bool { return len(app.Record(t).Started) == 2 })
	late := app.Publish(t, servers.CeleryTask{N: 1, Queue: "slow", Gate: "gate"})
	eventually.Holds(t, patience, "the task of the second worker", func() bool { return len(app.Record(t).Started) == 3 })

	want := []monitor.ActiveTask{
		{ID: early[0], RoutingKey: "fast", Acknowledged: true}, {ID: early[1], RoutingKey: "fast", Acknowledged: true}, {ID: late[0], RoutingKey: "slow"},
	}
	got := activeOf(t, ask(t, w, monitor.MethodActive, patience, bothNodes()...))
	for _, tasks := range [][]monitor.ActiveTask{want, got} {
		slices.SortFunc(tasks, func(a, b monitor.ActiveTask) int { return strings.Compare(a.ID, b.ID) })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what executes (-want +got):\n%s", diff)
	}
	slots := map[string]int64{}
	for node, reply := range ask(t, w, monitor.MethodStats, patience, bothNodes()...) {
		slots[node], _ = reply.Slots()
	}
	if diff := cmp.Diff(map[string]int64{"celery@one": 2, "celery@two": 1}, slots); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	serves := map[string][]string{}
	for node, reply := range ask(t, w, monitor.MethodActiveQueues, patience, bothNodes()...) {
		queues, _ := reply.Queues()
		for _, q := range queues {
			serves[node] = append(serves[node], q.Name)
		}
		slices.Sort(serves[node])
	}
	if diff := cmp.Diff(map[string][]string{"celery@one": {"fast", "slow"}, "celery@two": {"slow"}}, serves); diff != "" {
		t.Errorf("served queues (-want +got):\n%s", diff)
	}
	eventually.Holds(t, patience, "the list of replies to expire", func() bool { return len(keysOf(t, server.Admin())) == 0 })
}

func TestOnlyThoseAnswerWhoAreAsked(t *testing.T) {
	t.Parallel()
	_, _, w := startTwo(t, servers.StartRedis(t, servers.RedisOptions{}))
	if got := ask(t, w, monitor.MethodActive, patience, "celery@two"); len(got) != 1 {
		t.Errorf("%v answer a question to one", got)
	}
}

// For Celery, a question to no node is one to all.
func TestNobodyIsAsked(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	if got := ask(t, newWorkers(t, redis.Config{URL: server.URL(0)}), monitor.MethodActive, patience); len(got) != 0 || hasServed(t, server, "publish") {
		t.Errorf("%v answer a question to nobody, or it was put", got)
	}
}

// One that is not there and one that is frozen are silent alike. What the latter says
// when it goes on is of no interest any more, and goes away.
func TestFrozenWorkerIsSilent(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	_, one, w := startTwo(t, server)
	one.Signal(t, syscall.SIGSTOP)
	for _, nodes := range [][]string{{"celery@one", "celery@two", "celery@three"}, {"celery@two", "celery@one"}} {
		if got := ask(t, w, monitor.MethodActive, 2*time.Second, nodes...); len(got) != 1 || got["celery@two"].Node == "" {
			t.Errorf("%v answer, want celery@two alone", got)
		}
	}
	if got := ask(t, w, monitor.MethodActive, patience, "celery@two"); len(got) != 1 {
		t.Errorf("%v answer, want celery@two", got)
	}
	one.Signal(t, syscall.SIGCONT)
	var left []string
	eventually.Holds(t, patience, "the late answer", func() bool {
		left = keysOf(t, server.Admin())
		return len(left) == 1 && server.Admin().LLen(context.Background(), left[0]).Val() > 1
	})
	if ttl := server.Admin().TTL(context.Background(), left[0]).Val(); ttl < time.Minute {
		t.Errorf("the late answer has the time to live %s, want one long enough for others that are late", ttl)
	}
	if got := ask(t, w, monitor.MethodActive, patience, bothNodes()...); len(got) != 2 {
		t.Errorf("%v answer, want both again", got)
	}
}

func TestNobodyListens(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	replies, err := newWorkers(t, redis.Config{URL: server.URL(0)}).Ask(ctx, monitor.MethodActive, []string{"celery@worker"})
	if len(replies) != 0 || err != nil || ctx.Err() != nil {
		t.Errorf("Ask = %v, %v; the context is %v: want nothing, at once", replies, err, ctx.Err())
	}
	if left := server.Admin().Keys(t.Context(), "*").Val(); len(left) > 0 {
		t.Errorf("%q is left in Redis", left)
	}
}

// impostor answers each question by elements of its own. It stands in for what no
// real worker writes.
func impostor(t *testing.T, server *servers.Redis, elements func(ticket string) []string) {
	t.Helper()
	ctx := context.Background()
	heard := server.Admin().Subscribe(ctx, "/0.celery.pidbox")
	if _, err := heard.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	t.Cleanup(func() { _ = heard.Close(); ended.Wait() })
	ended.Go(func() {
		for message := range heard.Channel() {
			var m struct {
				Body       []byte `json:"body"`
				Properties struct {
					Tag string `json:"delivery_tag"`
				} `json:"properties"`
			}
			var question struct {
				ReplyTo struct {
					RoutingKey string `json:"routing_key"`
				} `json:"reply_to"`
			}
			if json.Unmarshal([]byte(message.Payload), &m) != nil || json.Unmarshal(m.Body, &question) != nil {
				t.Errorf("the question is %q", message.Payload)
				return
			}
			for _, element := range elements(m.Properties.Tag) {
				server.Admin().LPush(ctx, question.ReplyTo.RoutingKey, element)
			}
		}
	})
}

// reply is an answer of a node to a question.
func reply(node, ticket string) string {
	return eventMessage("application/json", "utf-8", fmt.Sprintf(`"ticket":%q`, ticket), fmt.Appendf(nil, `{%q: []}`, node))
}

func TestWhatIsNoAnswerIsDropped(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	impostor(t, server, func(ticket string) []string {
		good, other := reply("celery@one", ticket), reply("celery@two", "other")
		return []string{
			other, "", "\x80\x04", "[]", strings.Repeat("x", 3<<20), reply("celery@three", ticket),
			good, good, strings.Replace(good, "application/json", "application/x-python-serialize", 1), reply("celery@two", ticket), other,
		}
	})
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	for range 3 {
		got := ask(t, w, monitor.MethodActive, patience, "celery@one", "celery@two")
		if len(got) != 2 || got["celery@two"].Ticket == "other" {
			t.Errorf("%v answer, want celery@one and celery@two to this question", got)
		}
	}
}

func TestNoMoreIsReadThanWorkersMayAnswer(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	questions := 0
	impostor(t, server, func(ticket string) []string {
		elements := []string{reply("celery@one", ticket)}
		if questions++; questions > 1 {
			return elements
		}
		elements = make([]string, 300)
		for i := range elements {
			elements[i] = reply("celery@other", ticket)
		}
		return elements
	})
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	replies, err := w.Ask(ctx, monitor.MethodActive, []string{"celery@one"})
	if len(replies) != 0 || err != nil || ctx.Err() != nil {
		t.Errorf("Ask = %v, %v; the context is %v: want it to give up", replies, err, ctx.Err())
	}
	left := keysOf(t, server.Admin())
	if len(left) != 1 || server.Admin().TTL(t.Context(), left[0]).Val() <= 0 {
		t.Fatalf("%q are left, want a list that expires", left)
	}
	// Read were 100, two for the node, and never the one that keeps the list.
	eventually.Holds(t, patience, "the last element", func() bool { return server.Admin().LLen(context.Background(), left[0]).Val() == 300-102+1 })
	if got := ask(t, w, monitor.MethodActive, patience, "celery@one"); len(got) != 1 || server.Admin().LLen(t.Context(), left[0]).Val() > 1 {
		t.Errorf("%v answer, and %d elements are left; want one answer, and nothing of the question before", got, server.Admin().LLen(t.Context(), left[0]).Val())
	}
}

// Two at once do not take each other's answers.
func TestQuestionsAtOnce(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	impostor(t, server, func(ticket string) []string { return []string{reply("celery@one", ticket)} })
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	e := listen(t, w)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 5 {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				replies, err := w.Ask(ctx, monitor.MethodActive, []string{"celery@one"})
				cancel()
				if err != nil || len(replies) != 1 {
					t.Errorf("Ask = %v, %v; want one answer", replies, err)
				}
			}
		})
	}
	publishEvent(t, server.Admin(), "a@b", "/0.celeryev/worker.heartbeat")
	e.await(t, "an event meanwhile", isOf("a@b"))
	asking.Wait()
}

func TestAskEndsWithItsServer(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisOptions{})
	impostor(t, server, func(ticket string) []string { return []string{reply("celery@one", ticket)} })
	w := newWorkers(t, redis.Config{URL: server.URL(0)})
	type outcome struct {
		replies []monitor.ControlReply
		err     error
	}
	ended := make(chan outcome, 1)
	go func() {
		replies, err := w.Ask(context.Background(), monitor.MethodActive, []string{"celery@one", "celery@two"})
		ended <- outcome{replies, err}
	}()
	eventually.Holds(t, patience, "the first answer to be read", func() bool {
		left := keysOf(t, server.Admin())
		return len(left) == 1 && hasServed(t, server, "lpop") && server.Admin().LLen(context.Background(), left[0]).Val() == 1
	})
	server.Stop(t)
	got := <-ended
	brokertest.CheckText(t, got.err, "ask the workers of", server.Address())
	if len(got.replies) != 1 {
		t.Errorf("%v were read before, want the answer of celery@one", got.replies)
	}
}

// hasServed reports whether the server has run a command.
func hasServed(t *testing.T, server *servers.Redis, command string) bool {
	t.Helper()
	calls, _ := newKombu(server, redis.Config{}).commandStats(t, command)
	return calls > 0
}

func TestAskOfAServerThatIsDown(t *testing.T) {
	t.Parallel()
	first := servers.StartRedis(t, servers.RedisOptions{Password: "p@ss"})
	second := servers.StartRedis(t, servers.RedisOptions{})
	w := newWorkers(t, redis.Config{URL: first.URL(0) + ";" + second.URL(0)})
	first.Stop(t)
	if got := ask(t, w, monitor.MethodActive, patience, "celery@worker"); len(got) != 0 {
		t.Errorf("%v answer", got)
	}
	second.Pause(t)
	defer second.Resume(t)
	_, err := w.Ask(t.Context(), monitor.MethodActive, []string{"celery@worker"})
	brokertest.CheckText(t, err, "ask the workers of broker ns/broker at "+second.Address(), "no answer in time")
}

func TestAskOfAReplica(t *testing.T) {
	primary := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"repl-diskless-sync-delay 0"}})
	replica := servers.StartRedis(t, servers.RedisOptions{Directives: []string{"replicaof " + strings.Replace(primary.Address(), ":", " ", 1)}})
	w := newWorkers(t, redis.Config{URL: replica.URL(0)})
	_, err := w.Ask(t.Context(), monitor.MethodActive, []string{"celery@worker"})
	brokertest.CheckText(t, err, replica.Address(), "READONLY", "lead to the primary")

	// Events come to a replica as well.
	e := listen(t, w)
	eventually.Holds(t, patience, "an event through the replica", func() bool {
		publishEvent(t, primary.Admin(), "a@b", "/0.celeryev/worker.heartbeat")
		return e.count(isOf("a@b")) > 0
	})
}
