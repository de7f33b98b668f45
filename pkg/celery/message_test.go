package celery_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestDecodeUnacked(t *testing.T) {
	protocol1 := func(body string) string {
		return `[{"body":"` + base64.StdEncoding.EncodeToString([]byte(body)) +
			`","headers":{},"properties":{"body_encoding":"base64","delivery_info":{"exchange":"e","routing_key":"r"}}},"","celery"]`
	}
	tests := map[string]struct {
		value string
		want  celery.Unacked
	}{
		"Celery's usual message": {
			`[{"headers":{"task":"t","eta":null}}, "", "celery"]`, celery.Unacked{RoutingKey: "celery"},
		},
		"an exchange of its own": {
			`[{}, "media", "video.hd"]`, celery.Unacked{Exchange: "media", RoutingKey: "video.hd"},
		},
		"a fanout exchange needs no routing key": {
			`[{}, "everybody", ""]`, celery.Unacked{Exchange: "everybody"},
		},
		"names are decoded as JSON": {
			`[{}, null, "m\u00e9dia:\"hd\"\n"]`, celery.Unacked{RoutingKey: "média:\"hd\"\n"},
		},
		"ETA in the headers": {
			`[{"headers":{"task":"t","eta":"2026-01-02T12:00:00+00:00"}}, "", "q"]`, celery.Unacked{RoutingKey: "q", ETA: noon},
		},
		"ETA in the body of protocol 1": {
			protocol1(`{"task":"t","args":["secret"],"eta":"2026-01-02T12:00:00"}`), celery.Unacked{RoutingKey: "celery", ETA: noon},
		},
		"no ETA in the body of protocol 1": {
			protocol1(`{"task":"t","eta":null}`), celery.Unacked{RoutingKey: "celery"},
		},
		"a body that is no object has no ETA": {
			protocol1("\x80\x04pickle"), celery.Unacked{RoutingKey: "celery"},
		},
		"a body that is not base64 has no ETA": {
			`[{"body":"%","properties":{"body_encoding":"base64"}}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"the body of protocol 2 is not looked into": {
			`[{"body":"{\"eta\":\"2026-01-02T12:00:00\"}","headers":{"task":"t"}}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"an unreadable ETA counts as none": {
			`[{"headers":{"task":"t","eta":"tomorrow"}}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"an ETA that is no string counts as none": {
			`[{"headers":{"task":"t","eta":17}}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"the task's id in the headers": {
			`[{"headers":{"task":"t","id":"4711"},"properties":{"correlation_id":"other"}}, "", "q"]`, celery.Unacked{RoutingKey: "q", ID: "4711"},
		},
		"the task's id with protocol 1": {
			`[{"headers":{},"properties":{"correlation_id":"4711"}}, "", "q"]`, celery.Unacked{RoutingKey: "q", ID: "4711"},
		},
		"an id that is no string counts as none": {
			`[{"headers":{"task":"t","id":17},"properties":{"correlation_id":[]}}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"the bare message has an id, too": {
			`{"headers":{"id":"4711"},"properties":{"delivery_info":{"routing_key":"r"}}}`, celery.Unacked{RoutingKey: "r", ID: "4711"},
		},
		"the message need not be an object": {
			`["text", "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"headers of another type are passed over": {
			`[{"headers":[]}, "", "q"]`, celery.Unacked{RoutingKey: "q"},
		},
		"the bare message says where it went": {
			`{"properties":{"delivery_info":{"exchange":"e","routing_key":"r"}}}`, celery.Unacked{Exchange: "e", RoutingKey: "r"},
		},
		"a fourth part is passed over": {
			`[{"properties":{"delivery_info":{"routing_key":"r"}}}, "", "q", 1]`, celery.Unacked{RoutingKey: "r"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := celery.DecodeUnacked([]byte(tc.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("DecodeUnacked(%s) (-want +got):\n%s", tc.value, diff)
			}
		})
	}
}

func TestDecodeUnackedRefuses(t *testing.T) {
	for _, value := range []string{
		"", " ", "null", "17", `"text"`, "[]", "{}", "[{}]", `[{}, "", ""]`, "[{}, null, null]", `[{}, 1, "q"]`, `[{}, "", ["q"]]`,
		`[{}, "", "q"`, `{"properties":{"delivery_info":{"routing_key":""}}}`, `{"properties":{"delivery_info":[]}}`, "\x80\x04", "[[[[[[",
	} {
		if got, err := celery.DecodeUnacked([]byte(value)); !errors.Is(err, celery.ErrUnackedShape) {
			t.Errorf("DecodeUnacked(%q) = %+v, %v; want ErrUnackedShape", value, got, err)
		}
	}
}

func FuzzDecodeUnacked(f *testing.F) {
	f.Add([]byte(`[{"body":"e30=","headers":{"eta":"2026-01-02T12:00:00"},"properties":{"body_encoding":"base64","delivery_info":{"routing_key":"q"}}}, "", "q"]`))
	f.Add([]byte(`{"properties":{"delivery_info":{"exchange":"e","routing_key":"r"}}}`))
	f.Add([]byte("\x80\x04"))
	f.Fuzz(func(t *testing.T, value []byte) {
		u, err := celery.DecodeUnacked(value)
		if err != nil && (!errors.Is(err, celery.ErrUnackedShape) || u != celery.Unacked{}) {
			t.Errorf("DecodeUnacked = %+v, %v", u, err)
		}
		if err == nil && u.Exchange == "" && u.RoutingKey == "" {
			t.Error("a decoded message belongs nowhere")
		}
	})
}

func TestParseETA(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2026-01-02T12:00:00+00:00":        noon,
		"2026-01-02T12:00:00Z":             noon,
		"2026-01-02T12:00:00":              noon,
		"2026-01-02 12:00:00":              noon,
		"2026-01-02T14:00:00+02:00":        noon,
		"2026-01-02T14:00:00+0200":         noon,
		"2026-01-02T14:30:15+02:30:15":     noon,
		"2026-01-02T12:00":                 noon,
		"2026-01-02T12:00:00.250000+00:00": noon.Add(250 * time.Millisecond),
		"2026-01-02T12:00:00.000001":       noon.Add(time.Microsecond),
		"2026-01-02":                       noon.Add(-12 * time.Hour),
	} {
		if got, err := celery.ParseETA(text); err != nil || !got.Equal(want) {
			t.Errorf("ParseETA(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "now", "2026-13-01T00:00:00", "12:00:00", "1767355200"} {
		if got, err := celery.ParseETA(text); err == nil {
			t.Errorf("ParseETA(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseETA(f *testing.F) {
	f.Add("2026-01-02T12:00:00+00:00")
	f.Fuzz(func(t *testing.T, text string) {
		eta, err := celery.ParseETA(text)
		if err == nil && (eta.Location() != time.UTC || len(text) < len("2026-01-02")) {
			t.Errorf("ParseETA(%q) = %v", text, eta)
		}
	})
}

// The channels are those that kombu was seen to publish in, but for the braces, which
// stand in the source of kombu before 5.4.
func TestChannels(t *testing.T) {
	usual := celery.NewKeys("", "", "", "")
	prefixed := celery.NewKeys(`my[app]\*:`, "|", "", "")
	for name, c := range map[string]struct{ got, want []string }{
		"events":               {usual.EventPatterns(celery.TransportRedis, 0), []string{"/0.celeryev/worker.*"}},
		"control":              {usual.ControlChannels(celery.TransportRedis, 0), []string{"/0.celery.pidbox"}},
		"another database":     {usual.EventPatterns(celery.TransportRedis, 15), []string{"/15.celeryev/worker.*"}},
		"control there":        {usual.ControlChannels(celery.TransportRedis, 15), []string{"/15.celery.pidbox"}},
		"events of Sentinel":   {usual.EventPatterns(celery.TransportSentinel, 1), []string{"/1.celeryev/worker.*", "/{db}.celeryev/worker.*"}},
		"control of Sentinel":  {usual.ControlChannels(celery.TransportSentinel, 1), []string{"/1.celery.pidbox", "/{db}.celery.pidbox"}},
		"a prefix is no glob":  {prefixed.EventPatterns(celery.TransportRedis, 0), []string{`my\[app\]\\\*:/0.celeryev/worker.*`}},
		"a prefix of channels": {prefixed.ControlChannels(celery.TransportSentinel, 0), []string{`my[app]\*:/0.celery.pidbox`, `my[app]\*:/{db}.celery.pidbox`}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestQueueOfRepliesIsInternal(t *testing.T) {
	if name := celery.RepliesPrefix + "x"; !celery.IsInternalQueue(name) {
		t.Errorf("%q is taken for a queue to scale on", name)
	}
}

func TestKeys(t *testing.T) {
	usual := celery.NewKeys("", "", "", "")
	renamed := celery.NewKeys("my[app]*:", "|", "held", "held_index")
	for got, want := range map[string]string{
		usual.Queue("celery", 0):   "celery",
		usual.Queue("celery", 3):   "celery\x06\x163",
		usual.Unacked:              "unacked",
		usual.UnackedIndex:         "unacked_index",
		usual.Binding("media"):     "_kombu.binding.media",
		usual.BindingPattern():     "_kombu.binding.*",
		renamed.Queue("celery", 9): "my[app]*:celery|9",
		renamed.Unacked:            "my[app]*:held",
		renamed.UnackedIndex:       "my[app]*:held_index",
		renamed.Binding("media"):   "my[app]*:_kombu.binding.media",
		renamed.BindingPattern():   `my\[app\]\*:_kombu.binding.*`,
	} {
		if got != want {
			t.Errorf("got the key %q, want %q", got, want)
		}
	}
	if exchange, ok := renamed.Exchange("my[app]*:_kombu.binding.a.b"); !ok || exchange != "a.b" {
		t.Errorf("Exchange = %q, %t", exchange, ok)
	}
	for _, key := range []string{"_kombu.binding_deadlines", "_kombu.binding_permanent.media", "celery", "my_kombu.binding.x"} {
		if exchange, ok := usual.Exchange(key); ok {
			t.Errorf("%q is taken for the table of exchange %q", key, exchange)
		}
	}
}

// The rows were made with kombu's own TopicExchange.
func TestTopicBindingMatchesAsInKombu(t *testing.T) {
	for _, tc := range []struct {
		bound, key string
		want       bool
	}{
		{"video.#", "video", false},
		{"video.#", "video.", true},
		{"video.#", "video.a", true},
		{"video.#", "video.a.b", true},
		{"video.#", "xvideo.a", false},
		{"video.*", "video.a", true},
		{"video.*", "video.a.b", true},
		{"video.*", "video.", false},
		{"video.*", "video.a.", false},
		{"#", "", true},
		{"#", "a.b", true},
		{"*", "", false},
		{"*", "a", true},
		{"*", "a.b", true},
		{"*", "a.", false},
		{"a*.b", "a.b", true},
		{"a*.b", "aaa.b", true},
		{"a*.b", ".b", true},
		{"a*.b", "ab.b", false},
		{"a#", "a#", true},
		{"a#", "ab", false},
		{"x-y", "x-y", true},
		{"x-y", "xay", false},
		{"*.hd", "a.hd", true},
		{"*.hd", ".hd", false},
		{"*.hd", "a.b.hd", true},
	} {
		b := binding(t, tc.bound, "^stored pattern$", "q")
		if got := b.Matches(tc.key); got != tc.want {
			t.Errorf("a queue bound with %q takes %q: %t, want %t", tc.bound, tc.key, got, tc.want)
		}
	}
}

func binding(t *testing.T, routingKey, pattern, queue string) celery.Binding {
	t.Helper()
	b, err := celery.NewKeys("", "|", "", "").ParseBinding(routingKey + "|" + pattern + "|" + queue)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirectBindingMatchesItsKeyAlone(t *testing.T) {
	b := binding(t, "a.#", "", "q")
	if b.Queue != "q" || !b.Matches("a.#") || b.Matches("a.b") {
		t.Errorf("%+v is not a direct binding", b)
	}
	if !binding(t, "", "", "q").Matches("anything") {
		t.Error("a binding without key and pattern does not match everything")
	}
}

// What is stored as a pattern would run for ever in a backtracking matcher.
func TestStoredPatternIsNotExecuted(t *testing.T) {
	if b := binding(t, "a", "^(a+)+$", "q"); b.Matches(strings.Repeat("a", 100)) {
		t.Error("the stored pattern was used")
	}
}

func TestParseBindingRefuses(t *testing.T) {
	keys := celery.NewKeys("", "", "", "")
	for name, member := range map[string]string{
		"no separators": "celery",
		"two parts":     "a\x06\x16b",
		"four parts":    "a\x06\x16\x06\x16b\x06\x16c",
		"no queue":      "a\x06\x16\x06\x16",
		"long key":      strings.Repeat("a", 5000) + "\x06\x16x\x06\x16q",
		"no pattern":    "**\x06\x16x\x06\x16q",
	} {
		if b, err := keys.ParseBinding(member); !errors.Is(err, celery.ErrBinding) {
			t.Errorf("%s: ParseBinding = %+v, %v; want ErrBinding", name, b, err)
		}
	}
}

func FuzzParseBinding(f *testing.F) {
	f.Add("video.#|x|q", "video.hd")
	f.Add("a||q", "a")
	f.Add("*|x|q", "")
	f.Fuzz(func(t *testing.T, member, routingKey string) {
		b, err := celery.NewKeys("", "|", "", "").ParseBinding(member)
		if err != nil {
			if !errors.Is(err, celery.ErrBinding) {
				t.Errorf("error %v is no ErrBinding", err)
			}
			return
		}
		if b.Queue == "" || strings.Contains(b.RoutingKey, "|") {
			t.Errorf("ParseBinding(%q) = %+v", member, b)
		}
		b.Matches(routingKey)
	})
}

func TestInternalNames(t *testing.T) {
	for _, name := range []string{"celery@h.celery.pidbox", "celeryev.1b", "9f.reply.celery.pidbox", "bcast.1", "celery@h.dq2", "celery-task-meta-1", "celery-taskset-meta-1", "amq.gen-JzTY20BRgKO", "3f2b8c1e-9d4a-3c5e-8f7a-0123456789ab"} {
		if !celery.IsInternalQueue(name) {
			t.Errorf("queue %q is not taken for internal", name)
		}
	}
	for _, name := range []string{"celery", "celeryevents", "pidbox", "broadcast", "dq2", "", "amq.general", "celery_delayed_0", "tenant-3f2b8c1e-9d4a-3c5e-8f7a-0123456789ab", "3f2b8c1e-9d4a-3c5e-8f7a-0123456789aZ", "3f2b8c1e09d4a-3c5e-8f7a-0123456789ab", "3f2b8c1e_9d4a_3c5e_8f7a_0123456789ab"} {
		if celery.IsInternalQueue(name) {
			t.Errorf("queue %q is taken for internal", name)
		}
	}
	for name, want := range map[string]bool{"celery.pidbox": true, "reply.celery.pidbox": true, "celeryev": true, "app.pidbox": true, "celery": false, "media": false} {
		if got := celery.IsInternalExchange(name); got != want {
			t.Errorf("exchange %q is internal: %t, want %t", name, got, want)
		}
	}
}

func TestIsDelayedQueue(t *testing.T) {
	for _, name := range []string{"celery_delayed_0", "celery_delayed_9", "celery_delayed_27", "app_celery_delayed_13", "a_b_celery_delayed_1", "celery_delayed_1_celery_delayed_2"} {
		if !celery.IsDelayedQueue(name) {
			t.Errorf("queue %q is not taken for one of delayed delivery", name)
		}
	}
	for _, name := range []string{"", "celery", "celery_delayed_", "celery_delayed_28", "celery_delayed_-1", "celery_delayed_+1", "celery_delayed_01", "celery_delayed_1x", "celery_delayed_delivery", "_celery_delayed_1", "app.celery_delayed_1", "appcelery_delayed_1"} {
		if celery.IsDelayedQueue(name) {
			t.Errorf("queue %q is taken for one of delayed delivery", name)
		}
	}
}
