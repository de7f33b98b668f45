package brokertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// Run checks the contract. start makes an empty broker for one test, and stops
// it when that test ends.
func Run(t *testing.T, start func(t testing.TB) Broker) {
	rules := map[string]func(t *testing.T, b Broker){
		"an empty queue has a known zero":                       emptyQueue,
		"the backlog sums every priority":                       priorities,
		"a taken message is in flight until acknowledged":       inFlight,
		"a returned message is backlog again":                   returned,
		"a message held for an ETA is scheduled":                scheduled,
		"an ETA that has come is no longer scheduled":           etaComes,
		"queues are counted apart":                              apart,
		"a queue name may hold any byte":                        anyName,
		"a queue that is listed is counted whatever its name":   listed,
		"purge leaves what is in flight":                        purge,
		"a queue can be deleted and made again":                 remade,
		"a wiped broker has known zeros":                        wiped,
		"all declared queues are found, and no internal ones":   discovered,
		"a queue stays known while it is empty":                 staysKnown,
		"a stopped broker is an error, its return is noticed":   stopped,
		"a paused broker is an error within the time-out":       paused,
		"a wrong password is an error that says so":             wrongPassword,
		"a permission taken away is never a zero":               forbidden,
		"a cancelled context ends the sample":                   cancelled,
		"many messages in flight are counted one by one":        many,
		"a sample is not changed by the next":                   immutable,
		"messages without priority and with are the same queue": samePriorityQueue,
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) { rule(t, start(t)) })
	}
}

func emptyQueue(t *testing.T, b Broker) {
	b.Declare(t, "celery")
	Expect(t, b, b.NewDriver(t, RightPassword, "celery"), map[string]Counts{"celery": {}})
}

func priorities(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Declare(t, "celery")
	for priority := range 10 {
		b.Publish(t, "celery", make([]Message, 1)...)
		b.Publish(t, "celery", Message{Priority: priority})
		Expect(t, b, d, map[string]Counts{"celery": {Backlog: int64(2 * (priority + 1))}})
	}
}

func samePriorityQueue(t *testing.T, b Broker) {
	b.Publish(t, "celery", Message{Priority: 9})
	Expect(t, b, b.NewDriver(t, RightPassword, "celery"), map[string]Counts{"celery": {Backlog: 1}})
	b.Publish(t, "celery", Message{})
	Expect(t, b, b.NewDriver(t, RightPassword, "celery"), map[string]Counts{"celery": {Backlog: 2}})
}

func inFlight(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", make([]Message, 5)...)
	taken := b.Take(t, "celery", 3)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2, InFlight: 3}})
	b.Acknowledge(t, taken[0])
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2, InFlight: 2}})
	b.Acknowledge(t, taken[1:]...)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2}})
}

func returned(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", make([]Message, 2)...)
	b.Return(t, b.Take(t, "celery", 2)...)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2}})
	b.Take(t, "celery", 2)
	Expect(t, b, d, map[string]Counts{"celery": {InFlight: 2}})
}

func scheduled(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", Message{ETA: time.Now().Add(time.Hour)}, Message{ETA: time.Now().Add(-time.Hour)}, Message{})
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 3}})
	b.Take(t, "celery", 3)
	Expect(t, b, d, map[string]Counts{"celery": {InFlight: 3, Scheduled: 1}})
}

// etaComes waits for an ETA by looking at the driver until it has come. Celery writes ETAs
// in microseconds.
func etaComes(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	eta := time.Now().Add(time.Second).Truncate(time.Microsecond)
	b.Publish(t, "celery", Message{ETA: eta})
	b.Take(t, "celery", 1)
	if b.Traits().HidesETA {
		Expect(t, b, d, map[string]Counts{"celery": {InFlight: 1}})
		return
	}
	for {
		s, err := d.Sample(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		want := Counts{InFlight: 1}
		if s.At.Before(eta) {
			want.Scheduled = 1
		}
		if wrong := diff(b.Traits(), s, map[string]Counts{"celery": want}); wrong != "" {
			t.Fatal(wrong)
		}
		if want.Scheduled == 0 {
			return
		}
	}
}

func apart(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "a", "b", "c")
	b.Declare(t, "c")
	b.Publish(t, "a", make([]Message, 3)...)
	b.Publish(t, "b", make([]Message, 2)...)
	b.Take(t, "a", 1)
	b.Take(t, "b", 2)
	Expect(t, b, d, map[string]Counts{"a": {Backlog: 2, InFlight: 1}, "b": {InFlight: 2}, "c": {}})
}

// anyName uses names that are special to JSON, globs, patterns, or the broker's
// keys.
func anyName(t *testing.T, b Broker) {
	names := []string{
		"média:hd", "a b", `"quoted"`, `back\slash`, "*", "[a-z]?", "a.b.#", "日本語", "a\x06b", "celery9",
		"{tag}", "unacked2", "0", "-", "\x01", "very" + string(make([]byte, 200)),
	}
	if !b.Traits().NoLineBreaks {
		names = append(names, "new\nline")
	}
	for _, name := range names {
		b.Declare(t, name)
		b.Publish(t, name, make([]Message, 2)...)
		b.Take(t, name, 1)
	}
	want := map[string]Counts{}
	for _, name := range names {
		want[name] = Counts{Backlog: 1, InFlight: 1}
	}
	Expect(t, b, b.NewDriver(t, RightPassword, names...), want)
	Expect(t, b, b.NewDriver(t, RightPassword), want)
}

// listed names queues that are not looked for.
func listed(t *testing.T, b Broker) {
	names := []string{"celery@host.dq2", "0b4dba64-5d1c-4bb7-9d0f-1d6a1a9d7f2e"}
	want := map[string]Counts{}
	for _, name := range names {
		b.Declare(t, name)
		b.Publish(t, name, make([]Message, 3)...)
		b.Take(t, name, 2)
		want[name] = Counts{Backlog: 1, InFlight: 2}
	}
	Expect(t, b, b.NewDriver(t, RightPassword, names...), want)
}

func purge(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", Message{}, Message{Priority: 3}, Message{})
	b.Take(t, "celery", 1)
	b.Purge(t, "celery")
	Expect(t, b, d, map[string]Counts{"celery": {InFlight: 1}})
}

func remade(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	for range 2 {
		b.Declare(t, "celery")
		b.Publish(t, "celery", Message{}, Message{Priority: 3})
		Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2}})
		b.Delete(t, "celery")
		Expect(t, b, d, map[string]Counts{"celery": {}})
	}
}

func wiped(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", make([]Message, 3)...)
	b.Take(t, "celery", 1)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 2, InFlight: 1}})
	b.Wipe(t)
	Expect(t, b, d, map[string]Counts{"celery": {}})
}

func discovered(t *testing.T, b Broker) {
	names := []string{
		"celery", "video", "celery@host.celery.pidbox", "celeryev.5e9a", "9f0c.reply.celery.pidbox", "bcast.77aa", "celery@host.dq2",
	}
	for _, name := range names {
		b.Declare(t, name)
	}
	b.Publish(t, "video", Message{})
	d := b.NewDriver(t, RightPassword)
	ExpectSample(t, b, d, func(s *queue.Sample) string {
		if s.DiscoveryPending {
			return "the discovery is pending"
		}
		for _, name := range names[2:] {
			if _, ok := s.Queues[name]; ok {
				return "an internal queue was found: " + name
			}
		}
		return diff(b.Traits(), s, map[string]Counts{"celery": {}, "video": {Backlog: 1}})
	})
	b.Declare(t, "later")
	b.Publish(t, "later", Message{})
	expectInTheEnd(t, b, d, map[string]Counts{"later": {Backlog: 1}})
}

func staysKnown(t *testing.T, b Broker) {
	b.Declare(t, "celery")
	b.Publish(t, "celery", Message{})
	d := b.NewDriver(t, RightPassword)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 1}})
	b.Acknowledge(t, b.Take(t, "celery", 1)...)
	Expect(t, b, d, map[string]Counts{"celery": {}})
}

func stopped(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", make([]Message, 3)...)
	b.Take(t, "celery", 1)
	want := map[string]Counts{"celery": {Backlog: 2, InFlight: 1}}
	Expect(t, b, d, want)
	b.Stop(t)
	ExpectError(t, d, "ns/broker", "127.0.0.1")
	b.Start(t)
	// A broker that sees its workers' connections die has put back what they held.
	eventually(t, d, func(s *queue.Sample) string {
		if tasks := s.Queues["celery"].Tasks(); tasks.Err != nil || tasks.N != 3 {
			return fmt.Sprintf("the queue is %+v, want 3 tasks", s.Queues["celery"])
		}
		return ""
	})
}

func paused(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "celery")
	b.Publish(t, "celery", make([]Message, 3)...)
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 3}})
	b.Pause(t)
	resume := sync.OnceFunc(func() { b.Resume(t) })
	defer resume() // what comes after a failure must not wait for it
	ExpectError(t, d, "ns/broker", "no answer in time")
	resume()
	expectInTheEnd(t, b, d, map[string]Counts{"celery": {Backlog: 3}})
}

func wrongPassword(t *testing.T, b Broker) {
	b.Publish(t, "celery", Message{})
	ExpectError(t, b.NewDriver(t, WrongPassword, "celery"), "ns/broker", "password")
}

func forbidden(t *testing.T, b Broker) {
	b.Declare(t, "celery")
	d := b.NewDriver(t, RightPassword, "celery")
	Expect(t, b, d, map[string]Counts{"celery": {}})
	b.Forbid(t)
	// A broker whose counts settle may tell what was true before, but no other
	// number.
	err := refusal(d, "celery")
	for b.Traits().Settles && err == nil {
		err = refusal(d, "celery")
	}
	CheckText(t, err, "celery", "needs")
	b.Allow(t)
	expectInTheEnd(t, b, d, map[string]Counts{"celery": {}})
}

// refusal is why the tasks of a queue are not known, nil if they are known to be
// none.
func refusal(d Driver, name string) error {
	s, err := d.Sample(context.Background())
	if err != nil {
		return err
	}
	tasks := s.Queues[name].Tasks()
	if tasks.Err == nil && tasks.N != 0 {
		return fmt.Errorf("without permission there are %d tasks", tasks.N)
	}
	return tasks.Err
}

func cancelled(t *testing.T, b Broker) {
	b.Declare(t, "celery")
	d := b.NewDriver(t, RightPassword, "celery")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := d.Sample(ctx); err == nil {
		t.Errorf("the sample is %+v, want an error", s)
	}
	Expect(t, b, d, map[string]Counts{"celery": {}})
}

func many(t *testing.T, b Broker) {
	d := b.NewDriver(t, RightPassword, "a", "b")
	b.Publish(t, "a", make([]Message, 1200)...)
	b.Publish(t, "b", make([]Message, 300)...)
	held := b.Take(t, "a", 1100)
	b.Take(t, "b", 300)
	Expect(t, b, d, map[string]Counts{"a": {Backlog: 100, InFlight: 1100}, "b": {InFlight: 300}})
	b.Acknowledge(t, held[:1000]...)
	Expect(t, b, d, map[string]Counts{"a": {Backlog: 100, InFlight: 100}, "b": {InFlight: 300}})
}

func immutable(t *testing.T, b Broker) {
	b.Declare(t, "celery")
	d := b.NewDriver(t, RightPassword, "celery")
	first, err := d.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Publish(t, "celery", Message{})
	Expect(t, b, d, map[string]Counts{"celery": {Backlog: 1}})
	if wrong := diff(b.Traits(), first, map[string]Counts{"celery": {}}); wrong != "" {
		t.Errorf("the first sample was changed: %s", wrong)
	}
}
