package management

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

func known(n int64) celery.Number { return celery.Number{N: n, Known: true} }

func TestDecodeQueues(t *testing.T) {
	celery := map[string]Queue{"celery": {Type: "classic", State: "running", Ready: known(2), Unacked: known(1)}}
	const row = `{"name":"celery","type":"classic","state":"running","exclusive":false,"messages_ready":2,"messages_unacknowledged":1,"more":[{}]}`
	for name, c := range map[string]struct {
		text  string
		want  map[string]Queue
		pages int
	}{
		"a list":                           {`[` + row + `]`, celery, 1},
		"a page, wherever its fields are":  {`{"filtered_count":1,"page_count":3,"items":[` + row + `],"page":1}`, celery, 3},
		"no queues":                        {`[]`, map[string]Queue{}, 1},
		"a page without queues":            {`{"items":[],"page_count":0}`, map[string]Queue{}, 0},
		"numbers that are not given":       {`[{"name":"q","exclusive":null}]`, map[string]Queue{"q": {}}, 1},
		"numbers that are none":            {`[{"name":"q","messages_ready":"NaN","messages_unacknowledged":-1}]`, map[string]Queue{"q": {}}, 1},
		"a queue without a name":           {`[{"messages_ready":1},` + row + `]`, celery, 1},
		"a queue that is none":             {`[7,"x",null,` + row + `]`, celery, 1},
		"a field of another type":          {`[{"name":"q","state":{}}]`, map[string]Queue{"q": {State: "described by a state of the wrong type"}}, 1},
		"a name of another type":           {`[{"name":["q"]},` + row + `]`, celery, 1},
		"a name with escapes is the bytes": {`[{"name":"m\u00e9dia\u0000\""}]`, map[string]Queue{"média\x00\"": {}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]Queue{}
			pages, err := decodeQueues(strings.NewReader(c.text), got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || pages != c.pages {
				t.Errorf("%d pages, want %d; queues (-want +got):\n%s", pages, c.pages, diff)
			}
		})
	}
}

func TestDecodeQueuesRefuses(t *testing.T) {
	for _, text := range []string{"", "<html>", "7", `"x"`, "null", "[", `[{"name":"q"`, `[{"name":"q"}`, `{}`, `{"items":7}`, `{"items":[],"page_count":"x"}`, `{"items":[]`, "[{]"} {
		if pages, err := decodeQueues(strings.NewReader(text), map[string]Queue{}); err == nil {
			t.Errorf("%q: %d pages, want an error", text, pages)
		}
	}
}

func FuzzDecodeQueues(f *testing.F) {
	for _, text := range []string{`[{"name":"q","messages_ready":2,"messages_unacknowledged":1}]`, `{"items":[{"name":"q"}],"page_count":2}`, `[[[`, `[{"name":"q","messages_ready":"NaN"}]`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		queues := map[string]Queue{}
		if _, err := decodeQueues(strings.NewReader(text), queues); err != nil {
			return
		}
		for name, q := range queues {
			for _, n := range []celery.Number{q.Ready, q.Unacked} {
				if n.Known && n.N < 0 {
					t.Errorf("queue %q has %d messages", name, n.N)
				}
			}
		}
	})
}

func TestFilter(t *testing.T) {
	if got := filterFor(nil); got != nil {
		t.Errorf("for all queues there is the filter %v", got)
	}
	if got := filterFor([]string{strings.Repeat("long", 2000)}); got != nil {
		t.Errorf("a filter of %d bytes is longer than a server takes", len(got.Encode()))
	}
	filter := regexp.MustCompile(filterFor([]string{"celery", "a.b"}).Get("name"))
	for name, want := range map[string]bool{
		"celery": true, "a.b": true, "celery_delayed_7": true, "app_celery_delayed_27": true,
		"celery2": false, "a-b": false, "": false, "xcelery": false,
	} {
		if got := filter.MatchString(name); got != want {
			t.Errorf("the filter lets %q pass: %t, want %t", name, got, want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, name := range []string{"celery", "a.b*[c]\\", "\x00\x01\n", "média", "{}()|^$?+-#\"'~`"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) {
			t.Skip("Go's expressions are of text, PCRE's here of bytes")
		}
		quoted, err := regexp.Compile(`\A` + quote(name) + `\z`)
		if err != nil || !quoted.MatchString(name) || quoted.MatchString(name+"x") {
			t.Errorf("%q is quoted as %q: %v", name, quote(name), err)
		}
	})
}
