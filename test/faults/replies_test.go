package faults_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// aTask is a list of a task that executes, by the worker's account, with an id in JSON.
// It has the marker in all that a task may be called with.
func aTask(id, queue string) string {
	return fmt.Sprintf(`[{"id": %s, "name": "app.pay", "args": [%q], "kwargs": {"card": %q}, "acknowledged": true,
		"delivery_info": {"exchange": "", "routing_key": %q}}]`, id, marker, marker, queue)
}

// anID is the id of a task, in JSON.
func anID() string { return `"` + uuid.NewString() + `"` }

// well is the right answer to a question: a task of the queue fake.
func well(q question) post {
	return saying(q, q.node, map[string]string{
		"active":        aTask(anID(), "fake"),
		"active_queues": `[{"name": "fake", "exchange": {"name": "fake"}, "routing_key": "fake"}]`,
		"stats":         `{"pool": {"max-concurrency": 1}, "note": "` + marker + `"}`,
	}[q.method])
}

// saying is a reply with a content in JSON, from a node.
func saying(q question, node, content string) post {
	name, _ := json.Marshal(node) // text: cannot fail
	return inReply(q, fmt.Appendf(nil, `{%s: %s}`, name, content))
}

func inReply(q question, body []byte) post {
	return post{
		kind: "application/json", encoding: "utf-8", body: body,
		headers: map[string]any{"ticket": q.ticket, "clock": int64(7)},
	}
}

// replies are wrong answers to remote control. Those that are right but for one thing
// tell of tasks of the queue forged, which has none.
func replies() map[string]func(question) []post {
	forged := aTask(anID(), "forged")
	content := func(text string) func(question) []post {
		return func(q question) []post { return []post{saying(q, q.node, text)} }
	}
	changed := func(change func(q question, p *post)) func(question) []post {
		return func(q question) []post {
			p := saying(q, q.node, forged)
			change(q, &p)
			return []post{p}
		}
	}
	body := func(text string) func(question) []post {
		return changed(func(_ question, p *post) { p.body = []byte(text) })
	}
	return map[string]func(question) []post{
		"nothing":              func(question) []post { return nil },
		"the-right-one-thrice": func(q question) []post { return []post{well(q), well(q), well(q)} },
		"null":                 content(`null`),
		"text":                 content(`"` + marker + `"`),
		"an-error":             content(`{"error": "` + marker + `"}`),
		"a-list-of-text":       content(`["` + marker + `"]`),
		"an-id-of-10-kB":       content(aTask(`"`+strings.Repeat(marker, 1000)+`"`, "forged")),
		"an-id-of-no-text":     content(aTask(`["`+marker+`"]`, "forged")),
		"no-id":                content(aTask(`""`, "forged")),
		"one-of-two-without":   content(strings.TrimSuffix(forged, "]") + ", " + aTask("null", "forged")[1:]),
		"20000-tasks":          content("[" + strings.Repeat(`{"id": "x"},`, 20_000) + `{"id": "x"}]`),
		"5-MB":                 content(strings.Replace(forged, marker, strings.Repeat(marker, 5<<20/len(marker)), 1)),
		"deep":                 content(strings.Repeat("[", 12_000) + strings.Repeat("]", 12_000)),
		"a-list":               body("[" + forged + "]"),
		"no-JSON":              body(marker),
		"an-empty-body":        body(""),
		"nobody":               body("{}"),
		"two-workers":          body(`{"celery@forged": ` + forged + `, "celery@` + marker + `": ` + forged + `}`),
		"somebody-else":        body(`{"celery@` + marker + `": ` + forged + `}`),
		"another-ticket":       changed(func(_ question, p *post) { p.headers["ticket"] = uuid.NewString() }),
		"no-ticket":            changed(func(_ question, p *post) { delete(p.headers, "ticket") }),
		"a-ticket-of-no-text":  changed(func(_ question, p *post) { p.headers["ticket"] = int64(4711) }),
		"pickle":               changed(func(_ question, p *post) { p.kind = "application/x-python-serialize" }),
		"a-binary":             changed(func(_ question, p *post) { p.encoding = "binary" }),
		"compressed": changed(func(_ question, p *post) {
			small := compressed(p.body)
			p.body, p.headers["compression"] = small.body, small.headers["compression"]
		}),
		"50-strays": func(q question) []post {
			q.ticket = uuid.NewString()
			return slices.Repeat([]post{saying(q, q.node, forged)}, 50)
		},
	}
}

// A worker whose answer makes no sense is busy all the same, and asked again. What it
// said of tasks is seen nowhere, and the workers that answer well are heard.
func TestAnswersThatMakeNoSense(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		if s.rabbitMQ != nil {
			s.rabbitMQ.publish(t, "fake", 0)
			s.rabbitMQ.publish(t, "forged", 0)
		}
		p := s.run(t, "queues: [{name: celery}, {name: fake}, {name: forged}], ")
		p.hides(t, marker)
		p.awaitTasks(t, "forged", "0")
		forged := p.watchTasks(t, "forged")

		bad := map[string]func(question) []post{}
		for name, answer := range replies() {
			bad["celery@"+name] = answer
		}
		i := impostor{line: s.dial(t), bad: bad, good: well}
		i.start(t)
		p.awaitStates(t, states{"idle": 1, "busy": len(bad)})
		p.awaitTasks(t, "fake", fmt.Sprint(len(bad)))

		s.Publish(t, servers.CeleryTask{N: 1, Gate: "gate"})
		await(t, "the healthy worker's task", p.of("celery_queue_in_flight", "celery"), func(a answer) bool { return a.is("prod/celery", "1") })
		s.OpenGate(t, "gate")
		p.awaitStates(t, states{"idle": 1, "busy": len(bad)})
		p.awaitTasks(t, "fake", fmt.Sprint(len(bad)))
		checkOnly(t, forged.end(), "prod/forged", "0")
		if log := p.log.String(); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
			t.Errorf("answers that make no sense are logged:\n%s", log)
		}
		for _, metric := range []string{"celery_queue_in_flight", "celery_queue_tasks", "celery_queue_work_seconds", "celery_queue_wait_seconds"} {
			p.ask("default", metric, "")
		}
	})
}
