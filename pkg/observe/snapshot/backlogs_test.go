package snapshot_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/observe/snapshot"
	"github.com/celery-hpa/celery-hpa/pkg/queue"
)

// heard is the counts of one queue that a lookout has read.
func heard(name string, n int64, at time.Time) map[string]queue.Count {
	return map[string]queue.Count{name: queue.Known(n, at)}
}

// put says what is done to a store in which queue a is declared, and what is known of its
// backlog then, three seconds after t0.
type put struct {
	rule string
	do   func(s *snapshot.Store)
	want string
}

func sec(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }

// sampled puts a sample of queue a that has that backlog.
func sampled(s *snapshot.Store, at time.Time, backlog queue.Count) {
	s.Put(ref, sample(at, map[string]queue.Depth{"a": {Backlog: backlog, InFlight: queue.Known(0, at), Scheduled: queue.Known(0, at)}}))
}

func checkPuts(t *testing.T, puts []put) {
	t.Helper()
	for _, c := range puts {
		t.Run(c.rule, func(t *testing.T) {
			s := declared(map[string]string{"a": ""})
			c.do(s)
			if diff := cmp.Diff(c.want, errText(broker(t, s), "a", sec(3))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestABacklogGoesOverTheSampleWhileItIsYoungerAndMore(t *testing.T) {
	checkPuts(t, []put{
		{"messages that have arrived since the sample", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
		}, "3"},
		{"and more of them", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.PutBacklogs(ref, heard("a", 5, sec(2)))
		}, "5"},
		{"a count that is older than the sample", func(s *snapshot.Store) {
			sampled(s, sec(2), queue.Known(1, sec(2)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
		}, "1"},
		{"a count that is older than the one before", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(2)))
			s.PutBacklogs(ref, heard("a", 5, sec(1)))
		}, "3"},
		{"messages that are gone may be in flight, so that only a sample lets them go", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.PutBacklogs(ref, heard("a", 0, sec(2)))
		}, "3"},
		{"messages that were there already, too", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 0, sec(1)))
		}, "1"},
	})
}

func TestASampleLetsGoOnlyOfWhatWasReadBeforeItBegan(t *testing.T) {
	checkPuts(t, []put{
		{"a sample that began later", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "0"},
		{"a sample that had begun before is no reason to forget", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(2)))
			sampled(s, sec(1), queue.Known(0, sec(1)))
		}, "3"},
		{"not even of a message that only took the place of another", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 1, sec(1)))
			s.PutBacklogs(ref, heard("a", 1, sec(3)))
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "1"},
		{"or of one that came when others had gone", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(3, sec(0)))
			s.PutBacklogs(ref, heard("a", 1, sec(2)))
			sampled(s, sec(1), queue.Known(0, sec(1)))
		}, "1"},
		{"a sample that began between two counts lets go of the first", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.PutBacklogs(ref, heard("a", 1, sec(3)))
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "1"},
		{"and a third one of both", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.PutBacklogs(ref, heard("a", 1, sec(1)))
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "0"},
		{"messages go over a sample that is too old, however many it had", func(s *snapshot.Store) {
			sampled(s, sec(-60), queue.Known(3, sec(-60)))
			s.PutBacklogs(ref, heard("a", 1, sec(1)))
		}, "1"},
		{"and over a count that is too old", func(s *snapshot.Store) {
			sampled(s, sec(-60), queue.Known(0, sec(-60)))
			s.PutBacklogs(ref, heard("a", 3, sec(-50)))
			s.PutBacklogs(ref, heard("a", 1, sec(1)))
		}, "1"},
		{"nor is one whose backlog the broker had counted before", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(2)))
			sampled(s, sec(3), queue.Known(0, sec(1)))
		}, "3"},
		{"what is unknown is ignored", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, map[string]queue.Count{"a": {N: 9, At: sec(1), Err: errors.New("wrong type")}})
		}, "1"},
		{"a failure to sample leaves it", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(1, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.Fail(ref, errors.New("connection refused"), sec(2))
		}, "3"},
	})
}

func TestABacklogThatASampleDoesNotKnowIsTheOneThatWasReadLast(t *testing.T) {
	unknown := queue.Unknown(errors.New("no right"))
	checkPuts(t, []put{
		{"a lookout knows less than a sample that does not know", func(s *snapshot.Store) {
			sampled(s, sec(0), unknown)
			s.PutBacklogs(ref, heard("a", 0, sec(1)))
		}, "broker airflow/prod: queue a: no right"},
		{"but messages are messages", func(s *snapshot.Store) {
			sampled(s, sec(0), unknown)
			s.PutBacklogs(ref, heard("a", 2, sec(1)))
		}, "2"},
		{"also to a sample that began later", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(0)))
			s.PutBacklogs(ref, heard("a", 2, sec(1)))
			sampled(s, sec(2), unknown)
		}, "2"},
		{"until they are too old", func(s *snapshot.Store) {
			s.PutBacklogs(ref, heard("a", 2, sec(-60)))
			sampled(s, sec(2), unknown)
		}, "broker airflow/prod: queue a: no right"},
		{"or one knows again", func(s *snapshot.Store) {
			s.PutBacklogs(ref, heard("a", 2, sec(0)))
			sampled(s, sec(1), unknown)
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "0"},
		{"also one that had begun before", func(s *snapshot.Store) {
			sampled(s, sec(0), queue.Known(0, sec(0)))
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			s.PutBacklogs(ref, heard("a", 2, sec(2)))
			sampled(s, sec(1), unknown)
		}, "3"},
	})
}

func TestABacklogThatIsReadBeforeTheFirstSampleIsKept(t *testing.T) {
	checkPuts(t, []put{
		{"before the first sample nothing is known", func(s *snapshot.Store) {
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
		}, "broker airflow/prod has not been sampled yet"},
		{"a first sample that had begun before", func(s *snapshot.Store) {
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			sampled(s, sec(0), queue.Known(0, sec(0)))
		}, "3"},
		{"a first sample that began later", func(s *snapshot.Store) {
			s.PutBacklogs(ref, heard("a", 3, sec(1)))
			sampled(s, sec(2), queue.Known(0, sec(2)))
		}, "0"},
	})
}

func TestABacklogThatHasArrivedAgesAndTheRestOfTheDepthStays(t *testing.T) {
	s := declared(nil)
	d := depth(1, 2, 1, t0.Add(5*time.Second))
	d.Wait, d.Oldest = queue.Known(7, t0.Add(5*time.Second)), queue.Known(8, t0.Add(5*time.Second))
	d.Work = queue.Known(9, t0.Add(5*time.Second))
	s.Put(ref, sample(t0.Add(5*time.Second), map[string]queue.Depth{"a": d}))
	s.PutBacklogs(ref, heard("a", 4, t0.Add(6*time.Second)))
	got, err := broker(t, s).Lookup("a", t0.Add(6*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	d.Backlog = queue.Known(4, t0.Add(6*time.Second))
	if diff := cmp.Diff(d, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	got, err = broker(t, s).Lookup("a", t0.Add(17*time.Second))
	if err != nil || got.Backlog.Err == nil {
		t.Errorf("past the maximum age: %+v, %v; want an unknown backlog", got.Backlog, err)
	}
}

func TestABacklogOfWhatIsNotKnownIsIgnored(t *testing.T) {
	s := declared(nil)
	s.PutBacklogs(ref, heard("a", 3, t0.Add(time.Second))) // no sample, none declared
	s.Put(ref, sample(t0, map[string]queue.Depth{"a": depth(0, 0, 0, t0)}))
	before := broker(t, s)
	s.PutBacklogs(ref, heard("b", 3, t0.Add(time.Second)))
	s.PutBacklogs(queue.BrokerRef{Name: "other"}, heard("a", 3, t0.Add(time.Second)))
	if got := broker(t, s); got != before || len(s.All()) != 1 || errText(got, "a", t0) != "0" || got.Has("b") {
		t.Errorf("something has changed: a is %s", errText(got, "a", t0))
	}
	s.PutBacklogs(ref, heard("a", 3, t0.Add(time.Second)))
	s.Put(ref, sample(t0, map[string]queue.Depth{"b": depth(0, 0, 0, t0)}))
	s.Put(ref, sample(t0, map[string]queue.Depth{"a": depth(0, 0, 0, t0)}))
	if got := errText(broker(t, s), "a", t0); got != "0" {
		t.Errorf("a queue that was gone has kept a backlog of %s", got)
	}
}

func TestAViewStaysAsItWas(t *testing.T) {
	s := declared(nil)
	s.Put(ref, sample(t0, map[string]queue.Depth{"a": depth(0, 0, 0, t0), "b": depth(0, 0, 0, t0)}))
	var views []*snapshot.Broker
	for n := range int64(20) {
		s.PutBacklogs(ref, heard([]string{"a", "b"}[n%2], n+1, t0.Add(time.Duration(n))))
		views = append(views, broker(t, s))
	}
	for n, view := range views {
		if got, want := errText(view, []string{"a", "b"}[n%2], t0), fmt.Sprint(n+1); got != want {
			t.Errorf("view %d tells %s, want %s", n, got, want)
		}
	}
}

func TestOneBrokerByItsName(t *testing.T) {
	s := declared(nil)
	if b, ok := s.Broker(ref); !ok || b != broker(t, s) {
		t.Errorf("Broker(%s) = %v, %v", ref, b, ok)
	}
	if b, ok := s.Broker(queue.BrokerRef{Name: "other"}); ok || b != nil {
		t.Errorf("a broker that is not declared: %v, %v", b, ok)
	}
}

// Many counts of many queues, in any order, are kept as each queue's own would be.
func TestBacklogsOfManyQueuesDoNotMix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := declared(nil)
	queues := map[string]queue.Depth{}
	for i := range 300 {
		queues[fmt.Sprint("q", i)] = depth(0, 0, 0, t0)
	}
	s.Put(ref, sample(t0, queues))
	want := map[string]int64{}
	for step := range 2000 {
		counts := map[string]queue.Count{}
		for range r.IntN(1 + r.IntN(40)) {
			name, n := fmt.Sprint("q", r.IntN(300)), r.Int64N(1000)
			counts[name] = queue.Known(n, t0.Add(time.Duration(step)))
		}
		for name, c := range counts {
			want[name] = max(want[name], c.N)
		}
		s.PutBacklogs(ref, counts)
	}
	b := broker(t, s)
	for name := range queues {
		if got := errText(b, name, t0); got != fmt.Sprint(want[name]) {
			t.Errorf("%s: %s, want %d", name, got, want[name])
		}
	}
}

func TestWritersAndReadersDoNotWaitForEachOther(t *testing.T) {
	s := declared(nil)
	queues := map[string]queue.Depth{"a": depth(0, 0, 0, t0), "b": depth(0, 0, 0, t0)}
	s.Put(ref, sample(t0, queues))
	var all sync.WaitGroup
	for _, write := range []func(n int64){
		func(n int64) { s.PutBacklogs(ref, heard("a", n, t0.Add(time.Duration(n)))) },
		func(n int64) { s.PutBacklogs(ref, heard("b", n, t0.Add(time.Duration(n)))) },
		func(n int64) { s.Put(ref, sample(t0.Add(time.Duration(n/2)), queues)) },
		func(n int64) { s.Fail(ref, errors.New("connection refused"), t0.Add(time.Duration(n))) },
		func(int64) {
			view, _ := s.Broker(ref)
			if d, err := view.Lookup("a", t0); err != nil || d.Backlog.Err != nil {
				t.Errorf("%+v, %v", d, err)
			}
		},
	} {
		all.Go(func() {
			for n := range int64(1000) {
				write(n)
			}
		})
	}
	all.Wait()
}

// BenchmarkPutBacklogs is a message that arrives in one of 10,000 queues, and a look
// at it.
func BenchmarkPutBacklogs(b *testing.B) {
	names := make([]string, 10_000)
	queues := map[string]queue.Depth{}
	for i := range names {
		names[i] = fmt.Sprintf("queue-%05d", i)
		queues[names[i]] = depth(0, 0, 0, t0)
	}
	put := func(b *testing.B, counts func(n int) map[string]queue.Count) {
		s := declared(nil)
		s.Put(ref, sample(t0, queues))
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			if n%50_000 == 49_999 {
				s.Put(ref, sample(t0, queues))
			}
			s.PutBacklogs(ref, counts(n))
			view, _ := s.Broker(ref)
			if d, err := view.Lookup(names[n%len(names)], t0); err != nil || d.Backlog.Err != nil {
				b.Fatal(d, err)
			}
		}
	}
	b.Run("one of 10000 queues", func(b *testing.B) {
		put(b, func(n int) map[string]queue.Count {
			return heard(names[n%len(names)], int64(n+1), t0.Add(time.Duration(n)))
		})
	})
	all := map[string]queue.Count{}
	for _, name := range names {
		all[name] = queue.Known(0, t0.Add(time.Second))
	}
	b.Run("10000 empty queues", func(b *testing.B) {
		put(b, func(int) map[string]queue.Count { return all })
	})
}
