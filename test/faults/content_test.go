package faults_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// start runs a program with one broker, prod, on a server of its own.
func start(t *testing.T, spec string) (*servers.Redis, *program) {
	t.Helper()
	server := servers.StartRedis(t, servers.RedisOptions{})
	return server, run(t, document("default", "prod", atURL(server.URL(0))+", "+spec+often), nil)
}

// of asks for a metric of a queue in the namespace default.
func (p *program) of(metric, queue string) func() answer {
	return func() answer { return p.ask("default", metric, "queue="+queue) }
}

func TestFlushedBrokerHasZeros(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "celery", 5)
	hold(t, server, "tag", held("celery"))
	p.awaitTasks(t, "celery", "6")
	w := p.watchTasks(t, "celery")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.FlushAll(ctx) })
	p.awaitTasks(t, "celery", "0")
	for _, a := range w.end() {
		if !a.is("prod/celery", "6") && !a.is("prod/celery", "0") {
			t.Errorf("an answer was %s, want 6 or 0", a)
		}
	}
}

func TestQueueThatAppearsLater(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "default", 1)
	p.awaitTasks(t, "default", "1")
	if a := p.tasks("media"); !a.says(http.StatusNotFound, `no broker of namespace default has a queue "media"`, "closest of the known: default", "spec.queues") {
		t.Errorf("a queue that nobody knows: %s", a)
	}
	publish(t, server, "media", 2)
	p.awaitTasks(t, "media", "2")
}

func TestDeclaredQueueIsKnownBeforeItsFirstMessage(t *testing.T) {
	t.Parallel()
	_, p := start(t, "queues: [{name: celery}], ")
	p.awaitTasks(t, "celery", "0")
}

func TestWrongQuestions(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	for _, queue := range []string{"default", "high", "low"} {
		publish(t, server, queue, 1)
	}
	for _, queue := range []string{"default", "high", "low"} {
		p.awaitTasks(t, queue, "1")
	}
	for name, tc := range map[string]struct {
		namespace, metric, selector string
		code                        int
		want                        []string
	}{
		"a misspelt queue":              {"default", "celery_queue_tasks", "queue=defualt", 404, []string{`"defualt"`, "closest of the known: default"}},
		"one of two queues misspelt":    {"default", "celery_queue_tasks", "queue in (high, lwo)", 404, []string{`"lwo"`, "low"}},
		"a misspelt broker":             {"default", "celery_queue_tasks", "queue=high,broker=prd", 404, []string{`no CeleryBroker "prd"`, "prod"}},
		"a misspelt metric":             {"default", "celery_queue_task", "queue=high", 404, []string{`no metric "celery_queue_task"`, "celery_queue_tasks"}},
		"a label that no metric has":    {"default", "celery_queue_tasks", "queues=high", 404, []string{`no label "queues"`, "broker and queue"}},
		"a selector that excludes all":  {"default", "celery_queue_tasks", "queue notin (default, high, low)", 404, []string{"no queue in namespace default matches"}},
		"a contradiction":               {"default", "celery_queue_tasks", "queue=high,queue=low", 404, []string{"no queue in namespace default matches"}},
		"another namespace":             {"other", "celery_queue_tasks", "queue=high", 404, []string{"namespace other has no CeleryBroker"}},
		"no selector at all, elsewhere": {"other", "celery_queue_tasks", "", 404, []string{"namespace other has no CeleryBroker"}},
		"a selector that is none":       {"default", "celery_queue_tasks", "queue=(", 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if a := p.ask(tc.namespace, tc.metric, tc.selector); !a.says(tc.code, tc.want...) {
				t.Errorf("the answer is %s, want %d with %q", a, tc.code, tc.want)
			}
		})
	}
}

func TestNamespacesSeeTheirOwnBrokersOnly(t *testing.T) {
	t.Parallel()
	one, two := servers.StartRedis(t, servers.RedisOptions{}), servers.StartRedis(t, servers.RedisOptions{})
	publish(t, one, "celery", 1)
	publish(t, two, "celery", 2)
	p := run(t, document("one", "prod", atURL(one.URL(0))+", "+often)+document("two", "prod", atURL(two.URL(0))+", "+often), nil)
	for namespace, want := range map[string]string{"one": "1", "two": "2"} {
		for _, selector := range []string{"queue=celery", "broker=prod", ""} {
			await(t, namespace, func() answer { return p.ask(namespace, "celery_queue_tasks", selector) },
				func(a answer) bool { return a.is("prod/celery", want) })
		}
	}
}

func TestTwoProgramsInOneProcess(t *testing.T) {
	t.Parallel()
	serverOne, one := start(t, "")
	serverTwo, two := start(t, "")
	publish(t, serverOne, "celery", 1)
	publish(t, serverTwo, "celery", 2)
	one.awaitTasks(t, "celery", "1")
	two.awaitTasks(t, "celery", "2")
	one.awaitMetric(t, `celery_queue_tasks{broker="prod",namespace="default",queue="celery"} 1`)
	two.awaitMetric(t, `celery_queue_tasks{broker="prod",namespace="default",queue="celery"} 2`)
}

func TestKeyOfTheWrongTypeHarmsItsQueueOnly(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "good", 2)
	publish(t, server, "bad", 0)
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.Set(ctx, "bad", "x", 0) })
	p.awaitTasks(t, "good", "2")
	p.awaitError(t, "bad", "broker default/prod", `"bad"`, "WRONGTYPE")
	await(t, "an error of the sum", func() answer { return p.ask("default", "celery_queue_tasks", "") },
		func(a answer) bool { return a.says(503, "WRONGTYPE") })
	if text := p.metrics().Message; hasSeries(text, `celery_queue_backlog{broker="prod",namespace="default",queue="bad"}`) {
		t.Errorf("/metrics has a backlog of the bad queue:\n%s", text)
	}

	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.Set(ctx, "unacked", "x", 0) })
	p.awaitError(t, "good", `"unacked"`, "WRONGTYPE")
	if a := p.of("celery_queue_backlog", "good")(); !a.is("prod/good", "2") {
		t.Errorf("the backlog is %s, want 2: nothing is wrong with the list", a)
	}
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.Del(ctx, "unacked", "bad") })
	p.awaitTasks(t, "good", "2")
	p.awaitTasks(t, "bad", "0")
}

// The backlog counts messages, whatever they hold.
func TestMessagesThatAreNotJSON(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "celery", 1)
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.LPush(ctx, "celery", "\x80\x04pickle", "", "{") })
	p.awaitTasks(t, "celery", "4")
}

// An entry that nobody can assign may be of any queue: where nothing is in
// flight for certain, the count is unknown. What is in flight for certain stays.
func TestOddEntriesOfUnacked(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "busy", 1)
	publish(t, server, "idle", 3)
	hold(t, server, "good", held("busy"))
	p.awaitTasks(t, "busy", "2")
	p.awaitTasks(t, "idle", "3")
	for _, value := range []string{"", "x", "null", "[]", "{}", "[[[", `[1, 2]`, `["", "", ""]`, "\xff\x00", `[{}, "exchange", "key"]`, strings.Repeat("[", 10_000)} {
		hold(t, server, "odd", value)
		p.awaitError(t, "idle", "queue idle", "1 messages in flight", `tag "odd"`)
		p.awaitMetric(t, `celery_hpa_broker_unattributed_messages{broker="prod",namespace="default"} 1`)
		if a := p.of("celery_queue_backlog", "idle")(); !a.is("prod/idle", "3") {
			t.Errorf("with %.20q the backlog is %s, want 3", value, a)
		}
		if a := p.tasks("busy"); !a.is("prod/busy", "2") {
			t.Errorf("with %.20q the busy queue is %s, want 2", value, a)
		}
		do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
			p.HDel(ctx, "unacked", "odd")
			p.ZRem(ctx, "unacked_index", "odd")
		})
		p.awaitTasks(t, "idle", "3")
	}
}

func TestQueueNamesWithAnyByte(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	for name, label := range map[string]string{
		"média:hd":                 "m_dia_hd",
		"a b\xff\x00c":             "a_b__c",
		"{curly}*?[x]":             "x_curly____x_x",
		"x\r\ny":                   "x__y",
		`quo"te\`:                  "quo_te_x",
		strings.Repeat("long", 30): strings.Repeat("long", 13) + "lo-cc8458d7",
	} {
		publish(t, server, name, 1)
		p.awaitTasks(t, label, "1")
		p.awaitMetric(t, `celery_queue_backlog{broker="prod",namespace="default",queue="`+label+`"} 1`)
	}
}

func TestAliasOfAQueueNameWithAnyByte(t *testing.T) {
	t.Parallel()
	server, p := start(t, `queues: [{name: "média:\x01\n", alias: media-hd}], `)
	publish(t, server, "média:\x01\n", 1)
	hold(t, server, "tag", `[`+message+`, "", "média:\u0001\n"]`)
	p.awaitTasks(t, "media-hd", "2")
}

func TestQueuesThatShareALabel(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "a:b", 1)
	publish(t, server, "a_b", 2)
	publish(t, server, "other", 3)
	p.awaitTasks(t, "other", "3")
	p.awaitError(t, "a_b", `the label "a_b" stands for 2 queues`, `"a:b", "a_b"`, "alias")
	p.write(t, "brokers.yaml", document("default", "prod", atURL(server.URL(0))+
		`, queues: [{name: "a:b", alias: ab}, {name: a_b}], `+often))
	p.awaitTasks(t, "ab", "1")
	p.awaitTasks(t, "a_b", "2")
}

func TestCelerysOwnQueuesAreLeftOut(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	for _, name := range []string{"celery@host.celery.pidbox", "celeryev.4711", "4711.reply.celery.pidbox", "bcast.4711", "celery@host.dq2"} {
		publish(t, server, name, 1)
	}
	publish(t, server, "celery", 1)
	p.awaitTasks(t, "celery", "1")
	if a := p.ask("default", "celery_queue_tasks", ""); !a.is("prod/celery", "1") {
		t.Errorf("all queues are %s, want celery alone", a)
	}
}

func TestBindingsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server, p := start(t, "")
	publish(t, server, "celery", 1)
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.SAdd(ctx, "_kombu.binding.celery", "no separators", "", "\x06\x16\x06\x16", "(*[\x06\x16(\x06\x16odd")
		p.Set(ctx, "_kombu.binding.string", "x", 0)
	})
	p.awaitTasks(t, "celery", "1")
	p.awaitTasks(t, "odd", "0")
}

func TestRenamedKeys(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.SAdd(ctx, "app:_kombu.binding.celery", "celery::celery")
		p.LPush(ctx, "app:celery", message)
		p.LPush(ctx, "app:celery:3", message)
		p.HSet(ctx, "app:held", "tag", held("celery"))
		p.ZAdd(ctx, "app:index", goredis.Z{Member: "tag"})
	})
	p := run(t, document("default", "prod", atURL(server.URL(0))+
		`, redis: {globalKeyPrefix: "app:", separator: ":", unackedKey: held, unackedIndexKey: index}, `+often), nil)
	p.awaitTasks(t, "celery", "3")
}
