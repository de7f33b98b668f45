package faults_test

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

// marker stands in all that nobody may ever say.
const marker = "hunter2-args"

// beat is a heartbeat as Celery writes it, of a worker that has nothing to do, with
// fields replaced or, where they are nil, left out. It is worth something for long.
func beat(node string, fields map[string]any) []byte {
	event := map[string]any{
		"hostname": node, "utcoffset": 0, "pid": 4711, "clock": 63, "freq": 60.0, "active": 0, "processed": 0,
		"loadavg": []float64{0.1, 0.2, 0.3}, "sw_ident": "py-celery", "sw_ver": "5.6.3", "sw_sys": "Linux",
		"timestamp": 1795606940.5, "type": "worker-heartbeat", "note": marker,
	}
	maps.Copy(event, fields)
	maps.DeleteFunc(event, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(event)
	if err != nil {
		panic(err) // a mistake of this file
	}
	return text
}

// counts are what stands where a number of tasks should, in JSON, and tells none.
func counts() map[string]json.RawMessage {
	return map[string]json.RawMessage{
		"negative": json.RawMessage(`-1`), "1e30": json.RawMessage(`1e30`), "2^63": json.RawMessage(`9223372036854775808`),
		"10^12": json.RawMessage(`1000000000000`), "half": json.RawMessage(`0.5`), "text": json.RawMessage(`"0"`),
		"null": json.RawMessage(`null`), "false": json.RawMessage(`false`), "true": json.RawMessage(`true`), "a list": json.RawMessage(`[0]`),
		"a map": json.RawMessage(`{"hunter2-args": 0}`), "deep": json.RawMessage(strings.Repeat("[", 5000) + strings.Repeat("]", 5000)),
	}
}

// vague are heartbeats of a worker each that do not tell how many tasks execute.
func vague() map[string]post {
	events := map[string]post{}
	for _, field := range []string{"active", "processed"} {
		events[field+" is missing"] = inJSON(beat("celery@no-"+field, map[string]any{field: nil}))
		for name, value := range counts() {
			events[field+" is "+name] = inJSON(beat("celery@"+field+"-"+strings.ReplaceAll(name, " ", "-"), map[string]any{field: value}))
		}
	}
	return events
}

// odd are heartbeats of a worker each that tell that a task executes, however odd
// the worker is.
func odd() map[string]post {
	busy := func(node string, fields map[string]any) post {
		all := map[string]any{"active": 1}
		maps.Copy(all, fields)
		return inJSON(beat(node, all))
	}
	return map[string]post{
		"a host name with spaces":    busy("celery@my lap top", nil),
		"a host name beyond ASCII":   busy("sellerie@wörker-机", nil),
		"a host name with a quote":   busy(`celery@a"b\`, nil),
		"a version that is not ours": busy("celery@new", map[string]any{"sw_ident": "rs-celery", "sw_ver": 99, "loadavg": nil}),
	}
}

// senseless are events that are no worker's, or tell nothing.
func senseless() map[string]post {
	idle := beat("celery@"+marker, nil)
	of := func(fields map[string]any) post { return inJSON(beat("celery@"+marker, fields)) }
	return map[string]post{
		"a type of the user's":         of(map[string]any{"type": "worker-promoted"}),
		"a type of tasks":              of(map[string]any{"type": "task-succeeded"}),
		"no type":                      of(map[string]any{"type": nil}),
		"a type that is a number":      of(map[string]any{"type": 17}),
		"a type that holds more":       of(map[string]any{"type": "worker-heartbeat\n" + marker}),
		"no host name":                 of(map[string]any{"hostname": nil}),
		"a host name that is a number": of(map[string]any{"hostname": 17}),
		"600 characters":               of(map[string]any{"hostname": "celery@" + strings.Repeat(marker, 50)}),
		"two lines":                    of(map[string]any{"hostname": "celery@host\nlevel=ERROR msg=" + marker}),
		"an escape":                    of(map[string]any{"hostname": "celery@\x1b[31m" + marker}),
		"a zero byte":                  of(map[string]any{"hostname": "celery@\x00" + marker}),
		"no @":                         of(map[string]any{"hostname": marker}),
		"nothing before the @":         of(map[string]any{"hostname": "@" + marker}),
		"1 MB":                         of(map[string]any{"note": strings.Repeat(marker, 1<<20/len(marker))}),
		"deep nesting":                 inJSON([]byte(strings.Repeat("[", 12_000) + strings.Repeat("]", 2_000))),
		"half an event":                inJSON(idle[:len(idle)/2]),
		"an event and more":            inJSON(append(slices.Clone(idle), idle...)),
		"a list":                       inJSON(fmt.Appendf(nil, "[%s]", idle)),
		"no JSON":                      inJSON([]byte(marker)),
		"nothing":                      inJSON(nil),
		"YAML":                         {kind: "application/x-yaml", encoding: "utf-8", body: idle},
		"msgpack":                      {kind: "application/x-msgpack", encoding: "binary", body: append([]byte{0x81, 0xac}, marker...)},
		"pickle":                       {kind: "application/x-python-serialize", encoding: "binary", body: []byte("\x80\x04\x8c" + marker)},
		"JSON that is called pickle":   {kind: "application/x-python-serialize", encoding: "binary", body: idle},
		"JSON that is called binary":   {kind: "application/json", encoding: "binary", body: idle},
		"JSON of no type":              {body: idle},
		"compressed":                   compressed(idle),
		"a bomb":                       compressed(bytes.Repeat([]byte(marker), 10<<20/len(marker))),
	}
}

// compressed is what kombu sends with its option compression.
func compressed(body []byte) post {
	var small bytes.Buffer
	w := zlib.NewWriter(&small)
	_, _ = w.Write(body) // into memory: cannot fail
	_ = w.Close()
	return post{kind: "application/json", encoding: "utf-8", headers: map[string]any{"compression": "application/x-gzip"}, body: small.Bytes()}
}

// Whatever comes in the place of an event: a worker of which it tells nothing is
// unknown, or not there at all, and the others are what they are.
func TestEventsThatMakeNoSense(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		p := s.run(t, "")
		p.hides(t, marker)
		w := witness{site: s, program: p, known: states{"idle": 1}, heard: map[string]bool{}}
		w.hearAll(t)
		lines := strings.Count(p.log.String(), "\n")

		s.Publish(t, servers.CeleryTask{N: 1, Gate: "busy"})
		w.known["busy"]++
		delete(w.known, "idle")
		w.hearAll(t)

		text := p.log.String()
		if n := strings.Count(text, "event could not be understood"); n != 1 || strings.Count(text, "\n") != lines {
			t.Errorf("%d events that cannot be understood were logged, want the first alone, and nothing else:\n%s", n, text)
		}
		s.OpenGate(t, "busy")
		w.known["busy"]--
		w.known["idle"]++
		w.hear(t, "the healthy worker's task has ended", func() {})
	})
}

// The first of them is logged. Whichever it is, nothing of it is.
func TestEventsThatMakeNoSenseAreNotQuoted(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		says := map[string]func(*testing.T){}
		for name, event := range senseless() {
			says[name] = func(t *testing.T) { s.say(t, event) }
		}
		for name, message := range s.torn() {
			says[name] = func(t *testing.T) { s.sayRaw(t, message) }
		}
		for name, say := range says {
			t.Run(name, func(t *testing.T) {
				p := s.launch(t, "")
				p.hides(t, marker)
				say(t)
				p.awaitLog(t, "event could not be understood")
			})
		}
	})
}

// witness is a program that has heard some workers.
type witness struct {
	*site
	*program
	known states
	heard map[string]bool // by the name of the event
	// lively are those that say again and again that they are busy.
	lively map[string]post
	// refused is how many events could not be understood.
	refused int
}

// hearAll lets all the bad events be heard, one after the other.
func (w *witness) hearAll(t *testing.T) {
	t.Helper()
	w.hearWorkers(t, "busy", odd())
	w.lively = odd()
	w.hearWorkers(t, "unknown", vague())
	for name, event := range senseless() {
		w.refused++
		w.hear(t, name, func() { w.say(t, event) })
	}
	for name, message := range w.torn() {
		w.refused++
		w.hear(t, name, func() { w.sayRaw(t, message) })
	}
}

// hearWorkers lets events of a worker each be heard. Afterwards, as many are in the
// state.
func (w *witness) hearWorkers(t *testing.T, state string, events map[string]post) {
	t.Helper()
	for name, event := range events {
		if !w.heard[name] {
			w.known[state]++
		}
		w.heard[name] = true
		w.hear(t, name, func() { w.say(t, event) })
	}
}

// hear lets something be said and waits until the states and the number of events that
// were not understood are right. On the way, nobody is called idle who was not before.
func (w *witness) hear(t *testing.T, name string, say func()) {
	t.Helper()
	t.Logf("%s: want %v, and %d events not understood", name, w.known, w.refused)
	for _, event := range w.lively {
		w.say(t, event)
	}
	say()
	w.awaitChange(t, w.known)
	if w.refused > 0 {
		w.awaitMetric(t, fmt.Sprintf(`celery_hpa_worker_events_total{broker="prod",namespace="default",result="not_understood"} %d`, w.refused))
	}
}
