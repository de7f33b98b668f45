package monitor_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
)

// envelope is a message as kombu's virtual transports write it. Headers are JSON.
func envelope(contentType, contentEncoding, headers string, body []byte) []byte {
	text, _ := json.Marshal(map[string]any{ // of valid JSON: cannot fail
		"body": base64.StdEncoding.EncodeToString(body), "content-type": contentType, "content-encoding": contentEncoding,
		"headers": json.RawMessage(headers),
		"properties": map[string]any{
			"delivery_mode": 1, "priority": 0, "body_encoding": "base64", "delivery_tag": "x",
			"delivery_info": map[string]any{"exchange": "", "routing_key": "r"},
		},
	})
	return text
}

const answer = `{"celery@a": []}`

func TestEnvelopeIsOpened(t *testing.T) {
	for name, c := range map[string]struct{ message, ticket string }{
		"as kombu writes it":            {string(envelope("application/json", "utf-8", `{"ticket":"4711","clock":7}`, []byte(answer))), "4711"},
		"without headers":               {string(envelope("application/json", "utf-8", `null`, []byte(answer))), ""},
		"no ticket":                     {string(envelope("application/json", "utf-8", `{"ticket":null}`, []byte(answer))), ""},
		"a ticket that is no text":      {string(envelope("application/json", "utf-8", `{"ticket":4711}`, []byte(answer))), ""},
		"a compression that is none":    {string(envelope("application/json", "utf-8", `{"ticket":"4711","compression":null}`, []byte(answer))), "4711"},
		"a body that is not encoded":    {`{"body": "{\"celery@a\": []}", "content-type": "application/json", "properties": {}}`, ""},
		"a body of another encoding":    {`{"body": "{\"celery@a\": []}", "content-type": "application/json", "properties": {"body_encoding": "none"}}`, ""},
		"what nobody knows is no fault": {strings.Replace(string(envelope("application/json", "utf-8", `{"more":[1]}`, []byte(answer))), `{`, `{"more":{},`, 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := monitor.DecodeListedReply([]byte(c.message))
			if err != nil || r.Node != "celery@a" || r.Ticket != c.ticket {
				t.Errorf("%q with the ticket %q, %v; want celery@a with %q", r.Node, r.Ticket, err, c.ticket)
			}
		})
	}
}

func TestEnvelopesThatAreNotOpened(t *testing.T) {
	secret := "hunter2"
	good := string(envelope("application/json", "utf-8", `{"ticket":"4711"}`, []byte(answer)))
	for name, message := range map[string]string{
		"nothing":                 "",
		"no JSON":                 secret,
		"null":                    "null",
		"a list":                  `["` + secret + `"]`,
		"text":                    `"` + secret + `"`,
		"half of it":              good[:len(good)/2],
		"no body":                 `{"content-type": "application/json"}`,
		"a body that is a map":    `{"body": {"` + secret + `": 1}, "content-type": "application/json"}`,
		"a body that is nothing":  strings.Replace(good, `"body":"`, `"body":null,"x":"`, 1),
		"no base64":               strings.Replace(good, `"body":"`, `"body":"%`+secret, 1),
		"half of base64":          strings.Replace(good, `"body":"`, `"body":"x`, 1),
		"a type that is a number": strings.Replace(good, `"application/json"`, `17`, 1),
		"headers that are text":   strings.Replace(good, `{"ticket":"4711"}`, `"`+secret+`"`, 1),
		"properties in a list":    strings.Replace(good, `"properties":{`, `"properties":[],"x":{`, 1),
		"compressed by zlib":      strings.Replace(good, `{"ticket":"4711"}`, `{"compression":"application/x-gzip"}`, 1),
		"compressed by any other": strings.Replace(good, `{"ticket":"4711"}`, `{"compression":"`+secret+`"}`, 1),
		"compressed, in a number": strings.Replace(good, `{"ticket":"4711"}`, `{"compression":0}`, 1),
		"deep nesting":            strings.Replace(good, `"4711"`, strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000), 1),
		"several MB":              strings.Replace(good, `"4711"`, `"`+strings.Repeat(secret, 1<<19)+`"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, noReply := monitor.DecodeListedReply([]byte(message))
			if !errors.Is(noReply, monitor.ErrReply) || strings.Contains(noReply.Error(), secret) {
				t.Errorf("as a reply: %v; want ErrReply that quotes nothing", noReply)
			}
			_, noEvent := monitor.DecodePublishedEvent([]byte(message))
			if !errors.Is(noEvent, monitor.ErrEvent) || strings.Contains(noEvent.Error(), secret) {
				t.Errorf("as an event: %v; want ErrEvent that quotes nothing", noEvent)
			}
		})
	}
}

// Whatever is in an envelope, it is what it is outside.
func FuzzEnvelope(f *testing.F) {
	f.Add("application/json", "utf-8", "4711", []byte(answer))
	f.Add("application/json", "UTF-8", "", heartbeat(f, nil))
	f.Add("application/x-python-serialize", "binary", "é\n", []byte("\x80\x04"))
	f.Fuzz(func(t *testing.T, contentType, contentEncoding, ticket string, body []byte) {
		if len(contentType)+len(contentEncoding)+len(ticket) > 1000 {
			return // the envelope itself has a bound
		}
		ticket = strings.ToValidUTF8(ticket, "") // JSON holds no other
		header, err := json.Marshal(map[string]string{"ticket": ticket})
		if err != nil {
			t.Fatal(err)
		}
		message := envelope(contentType, contentEncoding, string(header), body)

		want, refused := monitor.DecodeControlReply(contentType, contentEncoding, ticket, body)
		got, err := monitor.DecodeListedReply(message)
		if (refused == nil) != (err == nil) || got.Node != want.Node || got.Ticket != want.Ticket {
			t.Errorf("a reply outside is %q of %q, %v, and inside %q of %q, %v", want.Ticket, want.Node, refused, got.Ticket, got.Node, err)
		}
		event, refused := monitor.DecodeWorkerEvent(contentType, contentEncoding, body)
		opened, err := monitor.DecodePublishedEvent(message)
		if diff := cmp.Diff(event, opened); (refused == nil) != (err == nil) || diff != "" {
			t.Errorf("outside %v, inside %v (-outside +inside):\n%s", refused, err, diff)
		}
	})
}
