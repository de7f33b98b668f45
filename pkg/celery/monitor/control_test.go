package monitor_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

func TestControlRequestIsWrittenAsCeleryReadsIt(t *testing.T) {
	r := monitor.ControlRequest{
		Method: monitor.MethodActive, Nodes: []string{"celery@a", "celery@b"}, Ticket: "4711", ReplyTo: "celery-hpa.replies.1",
		Expires: time.UnixMilli(1795606940250),
	}
	body := map[string]any{
		"method": "active", "arguments": map[string]any{}, "destination": []any{"celery@a", "celery@b"},
		"pattern": nil, "matcher": nil, "ticket": "4711",
		"reply_to": map[string]any{"exchange": "", "routing_key": "celery-hpa.replies.1"},
	}
	if diff := cmp.Diff(any(body), parse(t, r.Body())); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"clock": int64(1), "expires": 1795606940.25}, r.Headers()); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	want := map[string]any{
		"body": base64.StdEncoding.EncodeToString(r.Body()), "content-encoding": "utf-8", "content-type": "application/json",
		"headers": map[string]any{"clock": 1.0, "expires": 1795606940.25},
		"properties": map[string]any{
			"delivery_mode": 1.0, "priority": 0.0, "body_encoding": "base64", "delivery_tag": "4711",
			"delivery_info": map[string]any{"exchange": "celery.pidbox", "routing_key": ""},
		},
	}
	if diff := cmp.Diff(any(want), parse(t, r.Published())); diff != "" {
		t.Errorf("as published on Redis (-want +got):\n%s", diff)
	}
}

func parse(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}

// reply is a decoded one of the worker celery@a.
func reply(t *testing.T, content string) monitor.ControlReply {
	t.Helper()
	r, err := monitor.DecodeControlReply("application/json", "utf-8", "4711", []byte(`{"celery@a": `+content+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDecodeControlReply(t *testing.T) {
	for name, c := range map[string]struct{ encoding, body, node string }{
		"as Celery writes it":       {"utf-8", `{"celery@worker-7d4f": []}`, "celery@worker-7d4f"},
		"in capitals":               {"UTF-8", `{"celery@a": []}`, "celery@a"},
		"without an encoding":       {"", `{"celery@a": []}`, "celery@a"},
		"of a node of another name": {"utf-8", `{"a b@hôst.example": {}}`, "a b@hôst.example"},
		"whatever the content is":   {"utf-8", `{"celery@a": {"error": "no such method"}}`, "celery@a"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := monitor.DecodeControlReply("application/json", c.encoding, "4711", []byte(c.body))
			if err != nil || got.Node != c.node || got.Ticket != "4711" {
				t.Errorf("%q, %q, %v; want %q and the ticket", got.Node, got.Ticket, err, c.node)
			}
			listed, err := monitor.DecodeListedReply(envelope("application/json", c.encoding, `{"ticket":"4711"}`, []byte(c.body)))
			if err != nil || listed.Node != c.node || listed.Ticket != "4711" {
				t.Errorf("in a list %q, %q, %v; want %q and the ticket", listed.Node, listed.Ticket, err, c.node)
			}
		})
	}
}

func TestDecodeControlReplyRefuses(t *testing.T) {
	secret := "hunter2"
	for name, c := range map[string]struct{ kind, encoding, body string }{
		"pickle":              {"application/x-python-serialize", "binary", "\x80\x04" + secret},
		"no type":             {"", "", `{"celery@a": "` + secret + `"}`},
		"compressed":          {"application/json", "gzip", secret},
		"no JSON":             {"application/json", "utf-8", secret},
		"nothing":             {"application/json", "utf-8", ""},
		"null":                {"application/json", "utf-8", "null"},
		"a list":              {"application/json", "utf-8", `[{"celery@a": "` + secret + `"}]`},
		"nobody":              {"application/json", "utf-8", `{}`},
		"two workers":         {"application/json", "utf-8", `{"celery@a": "` + secret + `", "celery@b": []}`},
		"no node":             {"application/json", "utf-8", `{"` + secret + `": []}`},
		"no host":             {"application/json", "utf-8", `{"` + secret + `@": []}`},
		"a node of two lines": {"application/json", "utf-8", `{"celery@a\n` + secret + `": []}`},
		"a very long node":    {"application/json", "utf-8", `{"celery@` + strings.Repeat(secret, 100) + `": []}`},
		"a very long body":    {"application/json", "utf-8", `{"celery@a": "` + strings.Repeat(secret, 1<<20/7) + `"}`},
		"what follows JSON":   {"application/json", "utf-8", `{"celery@a": []} "` + secret + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := monitor.DecodeControlReply(c.kind, c.encoding, "4711", []byte(c.body))
			if !errors.Is(err, monitor.ErrReply) || strings.Contains(err.Error(), secret) {
				t.Errorf("%q, %v; want ErrReply that quotes nothing", r.Node, err)
			}
		})
	}
}

func TestLongestReplyIsDecoded(t *testing.T) {
	frame := `{"celery@a": [""]}`
	for surplus, ok := range map[int]bool{0: true, 1: false} {
		body := strings.Replace(frame, `""`, `"`+strings.Repeat("x", 1<<20-len(frame)+surplus)+`"`, 1)
		for way, decode := range decoders() {
			if _, err := decode([]byte(body)); (err == nil) != ok {
				t.Errorf("%s: %d bytes: %v", way, len(body), err)
			}
		}
	}
}

// decoders are the ways in which a reply comes.
func decoders() map[string]func(body []byte) (monitor.ControlReply, error) {
	return map[string]func(body []byte) (monitor.ControlReply, error){
		"RabbitMQ": func(body []byte) (monitor.ControlReply, error) {
			return monitor.DecodeControlReply("application/json", "utf-8", "4711", body)
		},
		"Redis": func(body []byte) (monitor.ControlReply, error) {
			return monitor.DecodeListedReply(envelope("application/json", "utf-8", `{"ticket":"4711"}`, body))
		},
	}
}

// A task of "inspect active", as Celery 5.6.3 writes it.
const activeTask = `{"id": "4711", "name": "app.pay", "args": ["hunter2"], "kwargs": {"card": "hunter2"}, "type": "app.pay", "hostname": "celery@a",
	"time_start": 1795606940.5, "acknowledged": true, "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": false}, "worker_pid": 7}`

func TestActive(t *testing.T) {
	task := monitor.ActiveTask{ID: "4711", RoutingKey: "celery", Acknowledged: true}
	for name, c := range map[string]struct {
		content string
		want    []monitor.ActiveTask
	}{
		"a task":                    {`[` + activeTask + `]`, []monitor.ActiveTask{task}},
		"none":                      {`[]`, []monitor.ActiveTask{}},
		"two":                       {`[` + activeTask + `, {"id": "2"}]`, []monitor.ActiveTask{task, {ID: "2"}}},
		"an exchange of its own":    {`[{"id": "1", "delivery_info": {"exchange": "media", "routing_key": "video.hd"}}]`, []monitor.ActiveTask{{ID: "1", Exchange: "media", RoutingKey: "video.hd"}}},
		"null for each that can be": {`[{"id": "1", "acknowledged": null, "delivery_info": {"exchange": null, "routing_key": null}}]`, []monitor.ActiveTask{{ID: "1"}}},
		"no place at all":           {`[{"id": "1", "delivery_info": null}]`, []monitor.ActiveTask{{ID: "1"}}},
		"the longest id":            {`[{"id": "` + strings.Repeat("x", 255) + `"}]`, []monitor.ActiveTask{{ID: strings.Repeat("x", 255)}}},
		"the most tasks": {
			`[` + strings.Repeat(`{"id": "1"},`, 9_999) + `{"id": "1"}]`, slicesOf(monitor.ActiveTask{ID: "1"}, 10_000),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := reply(t, c.content).Active()
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v; (-want +got):\n%s", err, diff)
			}
		})
	}
}

func slicesOf[T any](value T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = value
	}
	return all
}

func TestQueues(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    []monitor.ServedQueue
	}{
		"as Celery writes it": {
			`[{"name": "celery", "exchange": {"name": "celery", "type": "direct", "durable": true}, "routing_key": "celery", "queue_arguments": null, "alias": null}]`,
			[]monitor.ServedQueue{{Name: "celery", Exchange: "celery", RoutingKey: "celery"}},
		},
		"none":                    {`[]`, []monitor.ServedQueue{}},
		"a queue and no exchange": {`[{"name": "q", "exchange": null, "routing_key": null}]`, []monitor.ServedQueue{{Name: "q"}}},
		"the most queues": {
			`[` + strings.Repeat(`{"name": "q"},`, 9_999) + `{"name": "q"}]`, slicesOf(monitor.ServedQueue{Name: "q"}, 10_000),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := reply(t, c.content).Queues()
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v; (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestSlots(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    int64
	}{
		"a pool":                        {`{"pool": {"max-concurrency": 4, "processes": [1, 2]}, "total": {"app.pay": 7}}`, 4},
		"a pool that grows":             {`{"pool": {"max-concurrency": 2}, "autoscaler": {"max": 10, "min": 2, "current": 3, "qty": 0}}`, 10},
		"an autoscaler that tells less": {`{"pool": {"max-concurrency": 2}, "autoscaler": {"max": "10"}}`, 2},
		"no autoscaler":                 {`{"pool": {"max-concurrency": 2}, "autoscaler": null}`, 2},
		"no slot at all":                {`{"pool": {"max-concurrency": 0}}`, 0},
		"as many as make sense":         {`{"pool": {"max-concurrency": 1000000}}`, 1_000_000},
		"as many, of a pool that grows": {`{"pool": {"max-concurrency": 1}, "autoscaler": {"max": 1000000}}`, 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := reply(t, c.content).Slots(); got != c.want || err != nil {
				t.Errorf("%d, %v; want %d", got, err, c.want)
			}
		})
	}
}

// What a worker answers that is no answer to the question. Each is refused by all
// three, but where it says of which it is one.
func TestAnswersThatMakeNoSense(t *testing.T) {
	const active, queues, slots = "active", "queues", "slots"
	for name, c := range map[string]struct{ content, fine string }{
		"null":                        {`null`, ""},
		"text":                        {`"hunter2"`, ""},
		"a number":                    {`17`, ""},
		"an error":                    {`{"error": "hunter2"}`, ""},
		"a good bye":                  {`{"ok": "hunter2"}`, ""},
		"a list of text":              {`["hunter2"]`, ""},
		"a list of lists":             {`[["hunter2"]]`, ""},
		"a list of nothing":           {`[null]`, ""},
		"no id":                       {`[{"name": "hunter2"}]`, queues},
		"an id that is a number":      {`[{"id": 4711, "args": "hunter2"}]`, ""},
		"an id that is too long":      {`[{"id": "` + strings.Repeat("hunter2", 37) + `"}]`, ""},
		"acknowledged in words":       {`[{"id": "1", "acknowledged": "hunter2"}]`, ""},
		"a place that is text":        {`[{"id": "1", "delivery_info": "hunter2"}]`, ""},
		"too many tasks":              {`[` + strings.Repeat(`{"id":"1"},`, 10_000) + `{"id":"hunter2"}]`, ""},
		"too many queues":             {`[` + strings.Repeat(`{"name":"q"},`, 10_000) + `{"name":"hunter2"}]`, ""},
		"an exchange that is text":    {`[{"name": "q", "exchange": "hunter2"}]`, ""},
		"a pool that is text":         {`{"pool": "hunter2"}`, ""},
		"a pool that tells no number": {`{"pool": {"max-concurrency": "hunter2"}}`, ""},
		"a pool of less than nothing": {`{"pool": {"max-concurrency": -1}}`, ""},
		"a pool without end":          {`{"pool": {"max-concurrency": 1000001}}`, ""},
		"an autoscaler without end":   {`{"pool": {"max-concurrency": 1}, "autoscaler": {"max": 1000001, "hunter2": 1}}`, ""},
		"deep nesting":                {strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := reply(t, c.content)
			_, noTasks := r.Active()
			_, noQueues := r.Queues()
			_, noSlots := r.Slots()
			for question, err := range map[string]error{active: noTasks, queues: noQueues, slots: noSlots} {
				if question == c.fine {
					continue
				}
				if !errors.Is(err, monitor.ErrReply) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s: %v; want ErrReply that quotes nothing", question, err)
				}
			}
		})
	}
}

func FuzzDecodeControlReply(f *testing.F) {
	f.Add([]byte(`{"celery@a": [` + activeTask + `]}`))
	f.Add([]byte(`{"celery@a": [{"name": "celery", "exchange": {"name": "celery"}, "routing_key": "celery"}]}`))
	f.Add([]byte(`{"celery@a": {"pool": {"max-concurrency": 4}, "autoscaler": {"max": 10}}}`))
	f.Add(envelope("application/json", "utf-8", `{"ticket":"4711"}`, []byte(`{"celery@a": []}`)))
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, decode := range []func([]byte) (monitor.ControlReply, error){decoders()["RabbitMQ"], monitor.DecodeListedReply} {
			r, err := decode(message)
			if err != nil {
				if !errors.Is(err, monitor.ErrReply) {
					t.Errorf("error %v is no ErrReply", err)
				}
				continue
			}
			if !strings.Contains(r.Node, "@") {
				t.Errorf("%q is of %q", message, r.Node)
			}
			checkContent(t, r)
		}
	})
}

// checkContent asks a reply for all that may be in it.
func checkContent(t *testing.T, r monitor.ControlReply) {
	t.Helper()
	tasks, noTasks := r.Active()
	for _, task := range tasks {
		if task.ID == "" || len(task.ID) > 255 {
			t.Errorf("a task has the id %q", task.ID)
		}
	}
	queues, noQueues := r.Queues()
	for _, q := range queues {
		if q.Name == "" {
			t.Error("a queue has no name")
		}
	}
	slots, noSlots := r.Slots()
	if slots < 0 || slots > 1_000_000 {
		t.Errorf("%d slots", slots)
	}
	for _, err := range []error{noTasks, noQueues, noSlots} {
		if err != nil && !errors.Is(err, monitor.ErrReply) {
			t.Errorf("error %v is no ErrReply", err)
		}
	}
}

// A question can be read whatever the names in it are.
func FuzzControlRequest(f *testing.F) {
	f.Add("celery@a", "celery-hpa.replies.1")
	f.Add("a\"b@\x00\n", "\xff")
	f.Fuzz(func(t *testing.T, node, replyTo string) {
		r := monitor.ControlRequest{Method: monitor.MethodStats, Nodes: []string{node}, Ticket: strconv.Quote(node), ReplyTo: replyTo}
		var published struct{ Body []byte }
		if err := json.Unmarshal(r.Published(), &published); err != nil || !bytes.Equal(published.Body, r.Body()) {
			t.Errorf("published as %s: %v", r.Published(), err)
		}
		var body struct{ Destination []string }
		if err := json.Unmarshal(r.Body(), &body); err != nil || len(body.Destination) != 1 {
			t.Errorf("asked as %s: %v", r.Body(), err)
		}
	})
}
