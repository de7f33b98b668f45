package brokers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/brokers"
)

func broker(namespace, name, url string, queues ...string) brokers.Broker {
	b := brokers.Broker{URL: url}
	b.Namespace, b.Name = namespace, name
	for _, q := range queues {
		b.Spec.Queues = append(b.Spec.Queues, v1alpha1.Queue{Name: q})
	}
	return b
}

func TestTwinsAreThoseThatWouldBeCountedTwice(t *testing.T) {
	prefixed := broker("a", "2", "redis://h/1")
	prefixed.Spec.Redis.GlobalKeyPrefix = "p:"
	bad := broker("a", "2", "redis://h/1")
	bad.Err = errors.New("bad")
	badNamesake := broker("a", "1", "redis://h/1")
	badNamesake.Err = errors.New("bad")
	first := broker("a", "1", "redis://h/1")
	for _, tt := range []struct {
		rule          string
		first, second brokers.Broker
		want          string // what is said of the second, empty for nothing
	}{
		{"the same URL", first, broker("a", "2", "redis://h/1"), "spec.url"},
		{"other credentials", first, broker("a", "2", "redis://u:p@h/1"), "spec.url"},
		{"the default port", first, broker("a", "2", "redis://h:6379/1"), "spec.url"},
		{"servers in another order", broker("a", "1", "amqp://h;amqp://i"), broker("a", "2", "amqp://i;amqp://h"), "spec.url"},
		{"the same name", first, broker("a", "1", "redis://other"), "metadata.name"},
		{"the same name, with an error", first, badNamesake, "metadata.name"},
		{"another namespace", first, broker("b", "1", "redis://h/1"), ""},
		{"another database", first, broker("a", "2", "redis://h/2"), ""},
		{"another prefix", first, prefixed, ""},
		{"another virtual host", broker("a", "1", "amqp://h/x"), broker("a", "2", "amqp://h/y"), ""},
		{"one whose URL is not known", first, bad, ""},
		{"a queue of both", broker("a", "1", "redis://h", "x", "y"), broker("a", "2", "redis://h", "y", "z"), "spec.url"},
		{"no queue of both", broker("a", "1", "redis://h", "x"), broker("a", "2", "redis://h", "y"), ""},
		{"all queues and one", broker("a", "1", "redis://h"), broker("a", "2", "redis://h", "y"), "spec.url"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			said := brokers.Twins([]brokers.Broker{tt.first, tt.second})
			if said[0] != nil {
				t.Errorf("of the first it says %v", said[0])
			}
			switch {
			case tt.want == "" && said[1] != nil:
				t.Errorf("of the second it says %v", said[1])
			case tt.want != "" && (said[1] == nil || !strings.HasPrefix(said[1].Error(), tt.want)):
				t.Errorf("of the second it says %v, want %s", said[1], tt.want)
			}
		})
	}
}

// One that is refused refuses no other.
func TestTwinsAreOfThoseThatAreUsed(t *testing.T) {
	said := brokers.Twins([]brokers.Broker{broker("a", "1", "redis://h", "x"), broker("a", "2", "redis://h", "x", "y"), broker("a", "3", "redis://h", "y")})
	if said[0] != nil || said[1] == nil || said[2] != nil {
		t.Errorf("it says %v", said)
	}
}

func TestWhatWasGoodStaysUnlessItWasMadeAnew(t *testing.T) {
	good, bad, anew := broker("a", "1", "redis://h"), broker("a", "1", ""), broker("a", "1", "")
	good.UID, bad.UID, anew.UID = "x", "x", "y"
	bad.Err, anew.Err = errors.New("bad"), errors.New("bad")
	for _, tt := range []struct {
		rule  string
		found brokers.Broker
		want  string
	}{{"the same object", bad, "redis://h"}, {"another of its name", anew, ""}} {
		if kept := brokers.KeepGood([]brokers.Broker{good}, []brokers.Broker{tt.found}); len(kept) != 1 || kept[0].URL != tt.want {
			t.Errorf("%s: the URL in use is %q, want %q", tt.rule, kept[0].URL, tt.want)
		}
	}
}
