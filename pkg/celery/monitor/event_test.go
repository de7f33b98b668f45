package monitor_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

func count(n int64) celery.Number { return celery.Number{N: n, Known: true} }

// heartbeat is one as Celery 5.6.3 writes it, with fields replaced or added.
func heartbeat(t testing.TB, fields map[string]any) []byte {
	t.Helper()
	event := map[string]any{
		"hostname": "celery@worker-7d4f", "utcoffset": 0, "pid": 4711, "clock": 63, "freq": 2.0, "active": 1, "processed": 2,
		"loadavg": []float64{0.1, 0.2, 0.3}, "sw_ident": "py-celery", "sw_ver": "5.6.3", "sw_sys": "Linux",
		"timestamp": 1795606940.5, "type": "worker-heartbeat",
	}
	for key, value := range fields {
		event[key] = value
		if value == nil {
			delete(event, key)
		}
	}
	text, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// published is an event in the envelope in which Redis delivers it.
func published(body []byte) []byte {
	return []byte(`{"body":"` + base64.StdEncoding.EncodeToString(body) + `","content-encoding":"utf-8","content-type":"application/json",` +
		`"headers":{"hostname":"celery@worker-7d4f"},"properties":{"delivery_mode":1,"delivery_info":{"exchange":"celeryev","routing_key":"worker.heartbeat"},` +
		`"priority":0,"body_encoding":"base64","delivery_tag":"x"}}`)
}

func TestDecodeWorkerEvent(t *testing.T) {
	usual := monitor.WorkerEvent{
		State: monitor.WorkerBeating, Node: "celery@worker-7d4f", PID: count(4711), Frequency: 2 * time.Second, Active: count(1), Processed: count(2),
	}
	with := func(change func(*monitor.WorkerEvent)) monitor.WorkerEvent {
		e := usual
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		fields map[string]any
		want   monitor.WorkerEvent
	}{
		"a heartbeat":           {nil, usual},
		"the first event":       {map[string]any{"type": "worker-online"}, with(func(e *monitor.WorkerEvent) { e.State = monitor.WorkerOnline })},
		"the last event":        {map[string]any{"type": "worker-offline"}, with(func(e *monitor.WorkerEvent) { e.State = monitor.WorkerOffline })},
		"one without counts":    {map[string]any{"active": nil, "processed": nil}, with(func(e *monitor.WorkerEvent) { e.Active, e.Processed = celery.Number{}, celery.Number{} })},
		"the most tasks":        {map[string]any{"active": 1_000_000}, with(func(e *monitor.WorkerEvent) { e.Active = count(1_000_000) })},
		"too many tasks":        {map[string]any{"active": 1_000_001}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"more than fit 64 bits": {map[string]any{"active": json.RawMessage("9223372036854775808")}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"no count of tasks taken": {map[string]any{"active": 0, "processed": nil}, with(func(e *monitor.WorkerEvent) {
			e.Active, e.Processed = celery.Number{}, celery.Number{}
		})},
		"too many tasks taken": {map[string]any{"active": 0, "processed": 1_000_000_000_000}, with(func(e *monitor.WorkerEvent) {
			e.Active, e.Processed = celery.Number{}, celery.Number{}
		})},
		"a negative count":      {map[string]any{"active": -1}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"a huge count":          {map[string]any{"active": 1e300}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"a count that is text":  {map[string]any{"active": "1"}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"a count that is a map": {map[string]any{"active": map[string]any{}}, with(func(e *monitor.WorkerEvent) { e.Active = celery.Number{} })},
		"a frequency of zero":   {map[string]any{"freq": 0}, with(func(e *monitor.WorkerEvent) { e.Frequency = 0 })},
		"a frequency of years":  {map[string]any{"freq": 1e12}, with(func(e *monitor.WorkerEvent) { e.Frequency = 0 })},
		"a frequency of text":   {map[string]any{"freq": "2"}, with(func(e *monitor.WorkerEvent) { e.Frequency = 0 })},
		"another host name":     {map[string]any{"hostname": "a b@hôst.example"}, with(func(e *monitor.WorkerEvent) { e.Node = "a b@hôst.example" })},
		"another version":       {map[string]any{"sw_ver": 9, "more": []int{1}}, usual},
	} {
		t.Run(name, func(t *testing.T) {
			body := heartbeat(t, c.fields)
			got, err := monitor.DecodeWorkerEvent("application/json", "utf-8", body)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v; (-want +got):\n%s", err, diff)
			}
			if again, err := monitor.DecodePublishedEvent(published(body)); err != nil || again != got {
				t.Errorf("in an envelope it is %+v, %v", again, err)
			}
		})
	}
}

func TestDecodeWorkerEventRefuses(t *testing.T) {
	secret := "hunter2"
	for name, c := range map[string]struct {
		kind, encoding string
		body           string
	}{
		"pickle":           {"application/x-python-serialize", "binary", "\x80\x04" + secret},
		"msgpack":          {"application/x-msgpack", "binary", "\x82" + secret},
		"compressed":       {"application/json", "gzip", secret},
		"no JSON":          {"application/json", "utf-8", secret},
		"a list":           {"application/json", "utf-8", `["` + secret + `"]`},
		"another type":     {"application/json", "utf-8", `{"type":"task-sent","hostname":"a@b","x":"` + secret + `"}`},
		"no node":          {"application/json", "utf-8", `{"type":"worker-heartbeat","hostname":"` + secret + `"}`},
		"no host":          {"application/json", "utf-8", `{"type":"worker-heartbeat","hostname":"` + secret + `@"}`},
		"a node of lines":  {"application/json", "utf-8", `{"type":"worker-heartbeat","hostname":"a@b\n` + secret + `"}`},
		"a very long node": {"application/json", "utf-8", `{"type":"worker-heartbeat","hostname":"a@` + strings.Repeat(secret, 100) + `"}`},
		"a very long body": {"application/json", "utf-8", `{"type":"worker-heartbeat","hostname":"a@b","x":"` + strings.Repeat(secret, 3000) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := monitor.DecodeWorkerEvent(c.kind, c.encoding, []byte(c.body))
			if !errors.Is(err, monitor.ErrEvent) || strings.Contains(err.Error(), secret) {
				t.Errorf("%+v, %v; want ErrEvent that quotes nothing", e, err)
			}
		})
	}
}

func TestDecodePublishedEventRefuses(t *testing.T) {
	good := string(published(heartbeat(t, nil)))
	for name, message := range map[string]string{
		"nothing":    "",
		"no object":  "[]",
		"no base64":  strings.Replace(good, `"body":"`, `"body":"%`, 1),
		"compressed": strings.Replace(good, `"headers":{`, `"headers":{"compression":"application/x-gzip",`, 1),
		"pickle":     strings.Replace(good, "application/json", "application/x-python-serialize", 1),
		"1 MB":       strings.Replace(good, `"hostname"`, `"x":"`+strings.Repeat("x", 1<<20)+`","hostname"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := monitor.DecodePublishedEvent([]byte(message)); !errors.Is(err, monitor.ErrEvent) {
				t.Errorf("%+v, %v; want ErrEvent", e, err)
			}
		})
	}
}

func TestHostOfAWorker(t *testing.T) {
	for node, want := range map[string]string{
		"celery@worker-0": "worker-0", "celery@worker-0.workers.ns.svc": "worker-0", "a@b@c": "b@c", "celery@": "",
	} {
		if got := (monitor.WorkerEvent{Node: node}).Host(); got != want {
			t.Errorf("the host of %q is %q, want %q", node, got, want)
		}
	}
}

func FuzzDecodePublishedEvent(f *testing.F) {
	f.Add(published(heartbeat(f, nil)))
	f.Add(heartbeat(f, nil))
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, decode := range []func([]byte) (monitor.WorkerEvent, error){
			monitor.DecodePublishedEvent,
			func(body []byte) (monitor.WorkerEvent, error) {
				return monitor.DecodeWorkerEvent("application/json", "", body)
			},
		} {
			e, err := decode(message)
			if err == nil && (e.State == 0 || !strings.Contains(e.Node, "@") || e.Frequency < 0 || e.Active.N < 0 || e.Active.N > 1_000_000 || e.Active.Known && !e.Processed.Known) {
				t.Errorf("%q is %+v", message, e)
			}
		}
	})
}
