package celery_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

func TestQueuesOf(t *testing.T) {
	tests := map[string]struct {
		prefix, separator, key string
		want                   []string
	}{
		"the bare name is its queue":                       {key: "celery", want: []string{"celery"}},
		"a priority belongs to the queue":                  {key: "celery\x06\x163", want: []string{"celery\x06\x163", "celery"}},
		"the lowest priority with a list of its own":       {key: "q\x06\x161", want: []string{"q\x06\x161", "q"}},
		"the highest priority":                             {key: "q\x06\x169", want: []string{"q\x06\x169", "q"}},
		"priority 0 has no list of its own":                {key: "q\x06\x160", want: []string{"q\x06\x160"}},
		"a priority has one digit":                         {key: "q\x06\x1612", want: []string{"q\x06\x1612"}},
		"a digit without a separator is of the name":       {key: "queue7", want: []string{"queue7"}},
		"another separator":                                {separator: ":", key: "media:4", want: []string{"media:4", "media"}},
		"the usual separator where there is another":       {separator: ":", key: "q\x06\x163", want: []string{"q\x06\x163"}},
		"a priority of a queue that ends like one":         {separator: ":", key: "media:4:4", want: []string{"media:4:4", "media:4"}},
		"the prefix is no part of the name":                {prefix: "app:", key: "app:celery\x06\x163", want: []string{"celery\x06\x163", "celery"}},
		"a key without the prefix is of nobody":            {prefix: "app:", key: "celery"},
		"a prefix is not looked for anywhere else":         {prefix: "app:", key: "my-app:celery"},
		"a separator that ends with a digit":               {separator: "-1", key: "q-15", want: []string{"q-15", "q"}},
		"nothing but the prefix is a queue without a name": {prefix: "app:", key: "app:", want: []string{""}},
	}
	for rule, tt := range tests {
		t.Run(rule, func(t *testing.T) {
			got := celery.NewKeys(tt.prefix, tt.separator, "", "").QueuesOf(tt.key)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("QueuesOf(%q), -want +got:\n%s", tt.key, diff)
			}
		})
	}
}

func FuzzQueuesOfKnowsEveryKeyOfAQueue(f *testing.F) {
	f.Add("", "", "celery")
	f.Add("app:", ":", "media:4")
	f.Fuzz(func(t *testing.T, prefix, separator, name string) {
		keys := celery.NewKeys(prefix, separator, "", "")
		for priority := range celery.MaxPriority + 1 {
			key := keys.Queue(name, priority)
			if got := keys.QueuesOf(key); !slices.Contains(got, name) {
				t.Error(fmt.Sprintf("QueuesOf(%q) = %q", key, got), "without", name)
			}
		}
	})
}
