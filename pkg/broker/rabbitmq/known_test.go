package rabbitmq

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/broker/rabbitmq/internal/management"
)

func listOf(at time.Time, names ...string) *listing {
	l := &listing{at: at, queues: map[string]management.Queue{}}
	for _, name := range names {
		l.queues[name] = management.Queue{Type: typeClassic}
	}
	return l
}

func TestAQueueThatIsGoneStaysKnownForAnHour(t *testing.T) {
	began := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	k := newKnown(nil)
	for _, step := range []struct {
		after time.Duration
		list  []string
		want  []string
	}{
		{0, []string{"a", "b"}, []string{"a", "b"}},
		{time.Hour, []string{"a"}, []string{"a", "b"}},
		{time.Hour + time.Second, []string{"a"}, []string{"a"}},
		{2 * time.Hour, []string{"a", "b"}, []string{"a", "b"}},
	} {
		if err := k.learn(listOf(began.Add(step.after), step.list...)); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(slices.Values(k.names)); !slices.Equal(got, step.want) {
			t.Errorf("after %s the known queues are %v, want %v", step.after, got, step.want)
		}
	}
}

func TestAListedQueueIsNeverForgotten(t *testing.T) {
	began := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	k := newKnown([]string{"a", "b"})
	for _, after := range []time.Duration{0, 24 * time.Hour} {
		if err := k.learn(listOf(began.Add(after), "other")); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(k.names, []string{"a", "b"}) {
		t.Errorf("the known queues are %v, want a and b", k.names)
	}
}

func TestTooManyQueuesAreAnError(t *testing.T) {
	list := listOf(time.Time{})
	for i := range maxQueues + 1 {
		list.queues[fmt.Sprint(i)] = management.Queue{}
	}
	if err := newKnown(nil).learn(list); err == nil {
		t.Error("there is no bound to the queues that are known")
	}
}
