package strictyaml_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/strictyaml"
)

// Inner is embedded by object without a name of its own.
type Inner struct {
	Embedded string `json:"embedded"`
}

// object has a field of every kind that the decoder tells apart.
type object struct {
	Inner    `json:",inline"`
	Text     string            `json:"text"`
	Number   int64             `json:"number"`
	Flag     *bool             `json:"flag"`
	Labels   map[string]string `json:"labels"`
	Time     *metav1.Time      `json:"time"`
	Duration metav1.Duration   `json:"duration"`
	List     []Inner           `json:"list"`
	Hidden   string            `json:"-"`
}

// only returns the one document of text.
func only(t *testing.T, text string) strictyaml.Document {
	t.Helper()
	documents, err := strictyaml.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(documents) != 1 || documents[0].Err != nil {
		t.Fatalf("documents %+v, want one without an error", documents)
	}
	return documents[0]
}

func TestDecodeEveryKind(t *testing.T) {
	var got object
	errs, _ := only(t, `
embedded: a
text: "yes"
number: 3
flag: true
labels: {b: c}
time: "2006-01-02T15:04:05Z"
duration: 2s
list: [{embedded: d}]
`).Decode(&got)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	shown := fmt.Sprint(got.Embedded, got.Text, got.Number, *got.Flag, got.Labels, got.Time.UTC().Year(), got.Duration.Duration, got.List)
	if want := "ayes3 true map[b:c] 2006 2s [{d}]"; shown != want {
		t.Errorf("decoded %s, want %s", shown, want)
	}
}

func TestDecodeRefusesOtherKinds(t *testing.T) {
	tests := []struct{ rule, text, want string }{
		{"a text for a number", "number: x", "number: Invalid value: must be a int64"},
		{"a fraction for a number", "number: 1.5", "number: Invalid value: must be a int64"},
		{"a text for a flag", "flag: x", "flag: Invalid value: must be a bool"},
		{"a flag for a text", "text: true", "text: Invalid value: must be a string: put it in quotes"},
		{"bytes for a text", "text: !!binary aGk=", "text: Invalid value: must be a string: put it in quotes"},
		{"a date without quotes for a text", "text: 2006-01-02", "text: Invalid value: must be a string: put it in quotes"},
		{"a list for a mapping of names", "labels: [a]", "labels: Invalid value: must be a mapping of names to strings, each name once"},
		{"a number in a mapping of names", "labels: {a: 1}", "labels: Invalid value: must be a mapping of names to strings, each name once"},
		{"a name twice in a mapping of names", "labels: {a: b, a: c}", "labels: Invalid value: must be a mapping of names to strings, each name once"},
		{"a text for a time", "time: now", "time: Invalid value: must be a time such as 2006-01-02T15:04:05Z"},
		{"a field that is not for files", "Hidden: a", "Hidden: Forbidden: unknown field: known here are duration, embedded, flag, labels, list, number, text, time"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var got object
			errs, _ := only(t, tt.text).Decode(&got)
			if len(errs) != 1 {
				t.Fatalf("errors %v, want one", errs)
			}
			if diff := cmp.Diff(tt.want, errs[0].Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLinesOf(t *testing.T) {
	var got object
	_, lines := only(t, "# one\ntext: a\nlist:\n- embedded: b\n- {}\n").Decode(&got)
	for path, want := range map[string]int{
		"text": 2, "list": 3, "list[0].embedded": 4, "list[1]": 5,
		"list[1].embedded": 5, "list[9]": 3, "missing": 2, "": 2,
	} {
		if got := lines.Of(path); got != want {
			t.Errorf("line of %q = %d, want %d", path, got, want)
		}
	}
}

func TestParseNumbersDocuments(t *testing.T) {
	documents, err := strictyaml.Parse([]byte("# none\n---\na: 1\n---\n# none\n---\n[\n--- {b: 2}\n...\n\nc: 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range documents {
		got = append(got, fmt.Sprint(d.Number, " at ", d.Line, " bad ", d.Err != nil))
	}
	want := []string{"1 at 3 bad false", "2 at 6 bad true", "3 at 8 bad false", "4 at 11 bad false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Documents that only the YAML parser tells apart must not be passed over.
func TestParseMissesNoDocument(t *testing.T) {
	documents, err := strictyaml.Parse([]byte("a: 1\r---\rb: 2\r"))
	if err != nil {
		t.Fatal(err)
	}
	if len(documents) != 1 || documents[0].Err == nil || !strings.Contains(documents[0].Err.Error(), "more than one document") {
		t.Errorf("documents %+v, want one with an error", documents)
	}
}

// FuzzDecode looks for input on which the decoder panics or names a line that
// the document does not have.
func FuzzDecode(f *testing.F) {
	f.Add("text: hunter2\nlist: [{embedded: hunter2}]")
	f.Add("hunter2: {}\n---\n? {}\n: &hunter2 [*hunter2]")
	f.Fuzz(func(t *testing.T, text string) {
		documents, err := strictyaml.Parse([]byte(text))
		if err != nil {
			return
		}
		// Each of these ends a line in YAML 1.1.
		breaks := strings.FieldsFunc(text+"$", func(r rune) bool { return !strings.ContainsRune("\n\r\u0085\u2028\u2029", r) })
		lastLine := len(strings.Join(breaks, "")) + 1
		for _, d := range documents {
			if d.Err != nil {
				continue
			}
			var into object
			errs, lines := d.Decode(&into)
			for _, e := range errs {
				if line := lines.Of(e.Field); line < d.Line || line > lastLine {
					t.Errorf("the error %v is on line %d, outside of the document", e, line)
				}
			}
		}
	})
}
