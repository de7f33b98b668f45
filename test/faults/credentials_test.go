package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

func TestWrongPasswordUntilItIsCorrected(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{Password: "right-hunter2"})
	publish(t, server, "celery", 5)
	wrong := strings.Replace(server.URL(0), "right", "wrong", 1)
	p := run(t, document("default", "prod", "url: {file: url}, "+often), map[string]string{"url": wrong})
	p.hides(t, "hunter2")
	p.awaitError(t, "celery", "broker default/prod", server.Address(), "the user name or password of the broker URL is wrong")
	p.awaitMetric(t, `celery_hpa_broker_up{broker="prod",namespace="default"} 0`)
	p.checkHealth(t, "/readyz", 200)
	p.write(t, "url", server.URL(0)+"\n")
	p.awaitTasks(t, "celery", "5")
}

func TestMissingPassword(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{Password: "hunter2"})
	p := run(t, document("default", "prod", atURL("redis://"+server.Address())+", "+often), nil)
	p.awaitError(t, "celery", "put it into the broker URL")
}

// The server gets a new password; the file gets it later.
func TestPasswordIsRotated(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{Users: []string{"reader on >hunter2-old ~* +@all"}})
	publish(t, server, "celery", 5)
	url := func(password string) string { return "redis://reader:" + password + "@" + server.Address() }
	p := run(t, document("default", "prod", "url: {file: url}, "+shortly), map[string]string{"url": url("hunter2-old")})
	p.hides(t, "hunter2")
	p.awaitTasks(t, "celery", "5")
	w := p.watchTasks(t, "celery")
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) {
		p.Do(ctx, "acl", "setuser", "reader", "resetpass", ">hunter2-new")
		p.Do(ctx, "client", "kill", "user", "reader")
	})
	p.awaitError(t, "celery", "the user name or password of the broker URL is wrong")
	p.write(t, "url", url("hunter2-new"))
	p.awaitTasks(t, "celery", "5")
	checkOnly(t, w.end(), "prod/celery", "5")
}

// A credential file that is bad for a while changes nothing.
func TestCredentialFileThatIsBad(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{Password: "hunter2"})
	publish(t, server, "celery", 5)
	p := run(t, document("default", "prod", "url: {file: url}, "+often), map[string]string{"url": server.URL(0)})
	p.hides(t, "hunter2")
	p.awaitTasks(t, "celery", "5")
	for text, complaint := range map[string]string{
		"": "url is empty", "hunter2": "no scheme", "redis://hunter2/x/y@h": "write / as %2F", "hunter2://h": "unknown scheme", "redis://:hunter2@h\nredis://": "more than one line",
	} {
		p.write(t, "url", text)
		p.awaitLog(t, complaint)
		p.awaitMetric(t, "celery_hpa_config_last_reload_successful 0")
	}
	publish(t, server, "celery", 1)
	p.awaitTasks(t, "celery", "6")
}

// setUser makes a user that has these rights alone.
func setUser(t *testing.T, server *servers.Redis, name string, rules []string) {
	t.Helper()
	args := []any{"acl", "setuser", name, "reset"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.Do(ctx, args...) })
}

// queueWithEverything fills a server so that every command is needed to read it.
func queueWithEverything(t *testing.T, server *servers.Redis) {
	t.Helper()
	publish(t, server, "default", 2)
	hold(t, server, "tag", held("default"))
	do(t, server, func(ctx context.Context, p goredis.Pipeliner) { p.LPush(ctx, "default\x06\x163", message) })
}

func TestDocumentedUsersMayReadAll(t *testing.T) {
	t.Parallel()
	for i, spec := range []string{"", "queues: [{name: default}], "} {
		t.Run(fmt.Sprintf("user %d", i+1), func(t *testing.T) {
			t.Parallel()
			server := servers.StartRedis(t, servers.RedisOptions{})
			queueWithEverything(t, server)
			setUser(t, server, "celery-hpa", documentedUsers(t, "hunter2")[i])
			url := "redis://celery-hpa:hunter2@" + server.Address()
			p := run(t, document("default", "prod", "url: {file: url}, "+spec+often)+
				document("default", "db1", "url: {file: url1}, queues: [{name: default}], workers: {heartbeats: false}, "+often),
				map[string]string{"url": url, "url1": url + "/1"})
			await(t, "all tasks", func() answer { return p.ask("default", "celery_queue_tasks", "queue=default,broker=prod") },
				func(a answer) bool { return a.is("prod/default", "4") })
			await(t, "the database 1", func() answer { return p.ask("default", "celery_queue_tasks", "queue=default,broker=db1") },
				func(a answer) bool { return a.is("db1/default", "0") })
			checkNoDenial(t, server)
		})
	}
}

// checkNoDenial looks at the server's own record of what it denied.
func checkNoDenial(t *testing.T, server *servers.Redis) {
	t.Helper()
	denied, err := server.Admin().ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range denied {
		t.Errorf("the server denied %s %q", d.Reason, d.Object)
	}
}

// Each of the documented rights is needed, and its lack is said by its name.
func TestMissingRightIsNamed(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	queueWithEverything(t, server)
	all := documentedUsers(t, "hunter2")[0]
	var brokers strings.Builder
	files := map[string]string{}
	needed := slices.DeleteFunc(slices.Clone(all), func(rule string) bool {
		// Without ROLE a replica is trusted; CLIENT SETNAME is a courtesy; the others
		// are for workers, for times, and for those that sleep.
		dispensable := strings.Fields("+role +client|setname +client|tracking +subscribe +lindex +psubscribe +ping +publish +del +rpush +expire +lpop")
		return !strings.HasPrefix(rule, "+") || slices.Contains(dispensable, rule)
	})
	for _, rule := range needed {
		user := "no-" + rule[1:]
		setUser(t, server, user, slices.DeleteFunc(slices.Clone(all), func(r string) bool { return r == rule }))
		files[user] = "redis://" + user + ":hunter2@" + server.Address()
		if rule == "+select" {
			files[user] += "/1"
		}
		brokers.WriteString(document("default", user, "url: {file: "+user+"}, "+often))
	}
	p := run(t, brokers.String(), files)
	p.hides(t, "hunter2")
	for _, rule := range needed {
		if rule == "+exec" {
			// Here the client library keeps the server's reason to itself.
			await(t, "any error without EXEC", func() answer { return p.ask("default", "celery_queue_tasks", "broker=no-exec") },
				func(a answer) bool { return a.says(503, "default/no-exec", server.Address()) })
			continue
		}
		await(t, "an error that names "+rule, func() answer { return p.ask("default", "celery_queue_tasks", "broker=no-"+rule[1:]) },
			func(a answer) bool { return a.says(503, "NOPERM", "'"+rule[1:]+"'") })
	}
}
