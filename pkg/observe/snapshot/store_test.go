package snapshot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

var (
	ref = queue.BrokerRef{Namespace: "airflow", Name: "prod"}
	t0  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func depth(backlog, inFlight, scheduled int64, at time.Time) queue.Depth {
	return queue.Depth{
		Backlog:   queue.Known(backlog, at),
		InFlight:  queue.Known(inFlight, at),
		Scheduled: queue.Known(scheduled, at),
	}
}

func sample(at time.Time, queues map[string]queue.Depth) *queue.Sample {
	return &queue.Sample{At: at, Queues: queues}
}

// declared is a store with one broker that discovers its queues.
func declared(queues map[string]string) *snapshot.Store {
	store := snapshot.New()
	store.Declare(snapshot.Declaration{Ref: ref, MaxAge: 10 * time.Second, Queues: queues})
	return store
}

func broker(t *testing.T, store *snapshot.Store) *snapshot.Broker {
	t.Helper()
	brokers := store.Namespace(ref.Namespace)
	if len(brokers) != 1 {
		t.Fatalf("namespace %s has %d brokers, want 1", ref.Namespace, len(brokers))
	}
	return brokers[0]
}

// errText is the message of the queue's backlog, or of the look-up itself.
func errText(b *snapshot.Broker, label string, now time.Time) string {
	d, err := b.Lookup(label, now)
	if err = errors.Join(err, d.Backlog.Err); err != nil {
		return err.Error()
	}
	return fmt.Sprint(d.Backlog.N)
}

func TestNotKnowingHasThreeAnswersAndNoneIsZero(t *testing.T) {
	refused := errors.New("dial tcp 127.0.0.1:6379: connection refused")
	for _, c := range []struct {
		rule  string
		store func() *snapshot.Store
		label string
		after time.Duration
		want  string
	}{
		{"a fresh zero is a zero", func() *snapshot.Store {
			s := declared(nil)
			s.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(0, 0, 0, t0)}))
			return s
		}, "default", 0, "0"},
		{"never sampled", func() *snapshot.Store {
			return declared(map[string]string{"default": ""})
		}, "default", 0, "broker airflow/prod has not been sampled yet"},
		{"never sampled, with the reason", func() *snapshot.Store {
			s := declared(map[string]string{"default": ""})
			s.Fail(ref, refused, t0)
			return s
		}, "default", 0, "broker airflow/prod has not been sampled yet: dial tcp 127.0.0.1:6379: connection refused"},
		{"a failure leaves the last value while it is young", func() *snapshot.Store {
			s := declared(nil)
			s.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
			s.Fail(ref, refused, t0.Add(time.Second))
			return s
		}, "default", 10 * time.Second, "7"},
		{
			"past the maximum age the value is gone and the cause is told", func() *snapshot.Store {
				s := declared(nil)
				s.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
				s.Fail(ref, refused, t0.Add(time.Second))
				return s
			}, "default", 10*time.Second + time.Millisecond,
			"broker airflow/prod: the last good sample is 10.001s old, which is over the maximum age of 10s: dial tcp 127.0.0.1:6379: connection refused",
		},
		{
			"a loop that hangs makes its counts stale as well", func() *snapshot.Store {
				s := declared(nil)
				s.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
				return s
			}, "default", time.Minute,
			"broker airflow/prod: the last good sample is 1m0s old, which is over the maximum age of 10s",
		},
		{"a misspelt queue", func() *snapshot.Store {
			s := declared(nil)
			s.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
			return s
		}, "defualt", 0, `broker airflow/prod: unknown queue "defualt"`},
		{"two queues of one label", func() *snapshot.Store {
			s := declared(nil)
			s.Put(ref, sample(t0, map[string]queue.Depth{"a:b": depth(1, 0, 0, t0), "a b": depth(2, 0, 0, t0), "c": depth(3, 0, 0, t0)}))
			return s
		}, "a_b", 0, `broker airflow/prod: the label "a_b" stands for 2 queues ("a b", "a:b"): give each an alias of its own in spec.queues`},
		{"others than the two of one label are unharmed", func() *snapshot.Store {
			s := declared(nil)
			s.Put(ref, sample(t0, map[string]queue.Depth{"a:b": depth(1, 0, 0, t0), "a b": depth(2, 0, 0, t0), "c": depth(3, 0, 0, t0)}))
			return s
		}, "c", 0, "3"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			got := errText(broker(t, c.store()), c.label, t0.Add(c.after))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestACountThatIsUnknownNamesItsQueueAndHarmsNoOther(t *testing.T) {
	store := declared(nil)
	bad := depth(0, 0, 0, t0)
	bad.Backlog = queue.Unknown(errors.New("the key holds no list"))
	store.Put(ref, sample(t0, map[string]queue.Depth{"bad": bad, "good": depth(4, 2, 1, t0)}))
	b := broker(t, store)
	if got, want := errText(b, "bad", t0), "broker airflow/prod: queue bad: the key holds no list"; got != want {
		t.Errorf("bad queue: got %q, want %q", got, want)
	}
	good, err := b.Lookup("good", t0)
	if err != nil {
		t.Fatal(err)
	}
	if tasks := good.Tasks(); tasks.Err != nil || tasks.N != 5 {
		t.Errorf("good queue: tasks = %+v, want 4 + 2 − 1", tasks)
	}
}

func TestAnAliasReplacesTheLabel(t *testing.T) {
	store := declared(map[string]string{"média:hd": "media-hd", "plain": ""})
	store.Put(ref, sample(t0, map[string]queue.Depth{"média:hd": depth(3, 0, 0, t0), "plain": depth(1, 0, 0, t0)}))
	b := broker(t, store)
	if diff := cmp.Diff([]string{"media-hd", "plain"}, b.Labels()); diff != "" {
		t.Errorf("labels (-want +got)\n%s", diff)
	}
	if got := errText(b, "media-hd", t0); got != "3" {
		t.Errorf("media-hd = %s, want 3", got)
	}
	if b.Has(queue.Label("média:hd")) {
		t.Error("the derived label is still known beside the alias")
	}
}

func TestLabelsFollowTheSetOfQueues(t *testing.T) {
	store := declared(nil)
	store.Put(ref, sample(t0, map[string]queue.Depth{"a": depth(1, 0, 0, t0)}))
	store.Put(ref, sample(t0, map[string]queue.Depth{"b": depth(2, 0, 0, t0)}))
	b := broker(t, store)
	if diff := cmp.Diff([]string{"b"}, b.Labels()); diff != "" {
		t.Errorf("labels (-want +got)\n%s", diff)
	}
	if got := errText(b, "b", t0); got != "2" {
		t.Errorf("b = %s, want 2", got)
	}
}

func TestDeclaringAgainDropsWhatMayComeFromAnotherServer(t *testing.T) {
	store := declared(nil)
	store.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
	store.Declare(snapshot.Declaration{Ref: ref, MaxAge: time.Second})
	if broker(t, store).Sampled() {
		t.Error("the broker still has the sample of its earlier declaration")
	}
}

func TestASampleOfAForgottenBrokerIsDropped(t *testing.T) {
	store := declared(nil)
	store.Forget(ref)
	store.Put(ref, sample(t0, map[string]queue.Depth{"default": depth(7, 0, 0, t0)}))
	store.Fail(ref, errors.New("late"), t0)
	if got := store.All(); len(got) != 0 {
		t.Errorf("the store holds %d brokers, want none", len(got))
	}
}

func TestReadyWaitsForASampleOrAReasonOfEveryBroker(t *testing.T) {
	other := queue.BrokerRef{Namespace: "media", Name: "main"}
	store := declared(nil)
	store.Declare(snapshot.Declaration{Ref: other, MaxAge: time.Second})
	store.Put(ref, sample(t0, nil))
	if err := store.Ready(); err == nil || !strings.Contains(err.Error(), "media/main") || strings.Contains(err.Error(), "airflow/prod") {
		t.Errorf("one broker open: Ready() = %v, want an error that names media/main alone", err)
	}
	store.Fail(other, errors.New("connection refused"), t0)
	if err := store.Ready(); err != nil {
		t.Errorf("one sampled, one failed with a reason: Ready() = %v, want nil", err)
	}
}

func TestANamespaceHoldsItsOwnBrokersOnly(t *testing.T) {
	store := declared(nil)
	if got := store.Namespace("media"); len(got) != 0 {
		t.Errorf("namespace media has %d brokers, want none", len(got))
	}
}

func TestTheListOfQueuesIsIncompleteUntilDiscoveryEnds(t *testing.T) {
	store := declared(nil)
	if broker(t, store).Incomplete() == nil {
		t.Error("before the first sample: complete")
	}
	store.Put(ref, &queue.Sample{At: t0, DiscoveryPending: true})
	if broker(t, store).Incomplete() == nil {
		t.Error("while discovery is pending: complete")
	}
	store.Put(ref, &queue.Sample{At: t0})
	if err := broker(t, store).Incomplete(); err != nil {
		t.Errorf("after discovery: %v", err)
	}
}

func TestDelayedMessagesAgeLikeCounts(t *testing.T) {
	store := declared(nil)
	if c := broker(t, store).Delayed(t0); c.Err == nil {
		t.Error("before the first sample they are known")
	}
	delayed := queue.Known(7, t0)
	store.Put(ref, &queue.Sample{At: t0, Delayed: &delayed})
	if c := broker(t, store).Delayed(t0.Add(10 * time.Second)); c.Err != nil || c.N != 7 {
		t.Errorf("%+v, want 7", c)
	}
	if c := broker(t, store).Delayed(t0.Add(11 * time.Second)); c.Err == nil || !strings.Contains(c.Err.Error(), "over the maximum age of 10s") {
		t.Errorf("past the maximum age: %+v, want an error that says so", c)
	}
	store.Put(ref, &queue.Sample{At: t0})
	if c := broker(t, store).Delayed(t0); c.Err == nil {
		t.Error("of a broker that does not tell they are known")
	}
}

func TestOldestCounts(t *testing.T) {
	store := declared(nil)
	if backlog, inFlight := broker(t, store).OldestCounts(); !backlog.IsZero() || !inFlight.IsZero() {
		t.Errorf("before the first sample: %s and %s", backlog, inFlight)
	}
	old := t0.Add(-5 * time.Second)
	unknown := queue.Unknown(errors.New("no right"))
	store.Put(ref, sample(t0, map[string]queue.Depth{
		"a": {Backlog: queue.Known(1, t0), InFlight: queue.Known(1, old)},
		"b": {Backlog: queue.Known(1, t0), InFlight: queue.Known(1, t0)},
		"c": {Backlog: unknown, InFlight: unknown},
	}))
	if backlog, inFlight := broker(t, store).OldestCounts(); !backlog.Equal(t0) || !inFlight.Equal(old) {
		t.Errorf("%s and %s, want %s and %s", backlog, inFlight, t0, old)
	}
}
