package queue_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

func TestLabel(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	tests := []struct{ rule, name, want string }{
		{"a valid label value is its own label", "Default.high_prio-2", "Default.high_prio-2"},
		{"63 characters fit", a(63), a(63)},
		{"64 characters are shortened with a hash", a(64), a(54) + "-ffe054fe"},
		{"another character becomes an underscore", "media:hd", "media_hd"},
		{"a character of two bytes becomes one underscore", "média", "m_dia"},
		{"a byte that is not UTF-8 becomes one underscore", "a\xff\xfeb", "a__b"},
		{"a NUL and a newline become underscores", "a\x00\nb", "a__b"},
		{"a first character that cannot begin a label gets an x before it", "_private", "x_private"},
		{"a last character that cannot end a label gets an x behind it", "queue.", "queue.x"},
		{"a replaced character at both ends", "é", "x_x"},
		{"63 characters of which the first needs an x are shortened", "_" + a(62), "x_" + a(52) + "-3e0a401b"},
		{"63 characters of two bytes each are not too long but for the ends", "a" + strings.Repeat("é", 61) + "a", "a" + strings.Repeat("_", 61) + "a"},
		{"an empty name", "", "x"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := queue.Label(tt.name); got != tt.want {
				t.Errorf("Label(%q) = %q, want %q", tt.name, got, tt.want)
			}
		})
	}
}

func TestLabelTellsLongNamesApart(t *testing.T) {
	head := strings.Repeat("a", 70)
	if one, two := queue.Label(head+"1"), queue.Label(head+"2"); one == two {
		t.Errorf("both names have the label %q", one)
	}
}

func FuzzLabel(f *testing.F) {
	for _, name := range []string{"", "default", "média:hd", "\x06\x163", strings.Repeat(".", 100)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		label := queue.Label(name)
		if problems := validation.IsValidLabelValue(label); len(problems) > 0 || label == "" {
			t.Errorf("Label(%q) = %q: %v", name, label, problems)
		}
		if again := queue.Label(label); again != label {
			t.Errorf("Label(%q) = %q, whose own label is %q", name, label, again)
		}
	})
}
