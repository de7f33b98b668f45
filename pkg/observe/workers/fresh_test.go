package workers_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/celery/monitor"
	"github.com/celery-hpa/celery-hpa/pkg/observe/workers"
)

// oneTask is the answer of a worker that executes a task.
const oneTask = `[{"id": "1", "acknowledged": true, "delivery_info": {"routing_key": "celery"}}]`

// settle lets the questions that a new worker raises be asked, and forgets them.
func (s *source) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
	s.takeAsked()
}

// look asks hosts afresh and returns what Fresh says, and the questions put.
func (s *source) look(t *testing.T, g *workers.Group, hosts ...string) (said string, asked []string) {
	t.Helper()
	err := g.Fresh(t.Context(), "airflow", hosts)
	if err != nil {
		said = err.Error()
	}
	if err != nil && !errors.Is(err, workers.ErrUnanswered) {
		t.Errorf("Fresh says %v", err)
	}
	return said, s.takeAsked()
}

func TestFreshLookAsksWhoLives(t *testing.T) {
	const unanswered = "broker airflow/redis: workers have not told what they execute: "
	offline := beat("offline", 7, 0, 0)
	offline.State = monitor.WorkerOffline
	tests := []struct {
		rule  string
		hosts []string
		want  string
		asked []string
	}{
		{"one that executes nothing", []string{"idle"}, "", []string{"active celery@idle"}},
		{"one that executes something", []string{"begun"}, "", []string{"active celery@begun"}},
		{"one that does not answer is named", []string{"mute"}, unanswered + "no answer within 1s of celery@mute", []string{"active celery@mute"}},
		{"so is one whose answer cannot be understood", []string{"odd"}, unanswered + "no answer within 1s of celery@odd", []string{"active celery@odd"}},
		{
			"all are asked in one go, each once",
			[]string{"odd", "mute", "idle", "begun", "begun"},
			unanswered + "no answer within 1s of celery@mute, celery@odd",
			[]string{"active celery@begun,celery@idle,celery@mute,celery@odd"},
		},
		{"one that is silent is not asked", []string{"silent"}, "", nil},
		{"nor one that shuts down", []string{"offline"}, "", nil},
		{"nor one that nobody knows", []string{"unheard"}, "", nil},
		{"nor are two of one name", []string{"twins"}, unanswered + "several have the same name, so that answers could not be told apart: celery@twins", nil},
		{"without hosts nobody is asked", nil, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newSource()
			s.answers = map[string]string{"active celery@idle": `[]`, "active celery@begun": oneTask, "active celery@odd": `{"error": "what?"}`}
			runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
				s.say(beat("silent", 7, 0, 0))
				time.Sleep(7 * time.Second)
				for _, e := range []monitor.WorkerEvent{beat("idle", 7, 0, 0), beat("begun", 7, 0, 0), beat("mute", 7, 0, 0), beat("odd", 7, 0, 0), beat("twins", 7, 0, 0), beat("twins", 8, 0, 0), offline} {
					s.say(e)
				}
				s.settle()
				got, asked := s.look(t, g, tt.hosts...)
				if got != tt.want {
					t.Errorf("Fresh says %q, want %q", got, tt.want)
				}
				if diff := cmp.Diff(tt.asked, asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFreshLookNamesTheFirstFew(t *testing.T) {
	s := newSource()
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		hosts := []string{"a", "b", "c", "d", "e", "f", "g"}
		for _, host := range hosts {
			s.say(beat(host, 7, 0, 0))
		}
		said, _ := s.look(t, g, hosts...)
		if want := "celery@a, celery@b, celery@c, celery@d, celery@e and 2 more"; !strings.HasSuffix(said, want) {
			t.Errorf("Fresh says %q, want it to end in %q", said, want)
		}
		if err := g.Fresh(t.Context(), "media", hosts); err != nil {
			t.Errorf("of another namespace Fresh says %v", err)
		}
	})
}

func TestFreshAnswersAreRemembered(t *testing.T) {
	s := newSource()
	s.answers["active celery@a"] = oneTask
	runGroup(t, s, func(t *testing.T, g *workers.Group, store *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		s.settle()
		s.look(t, g, "a")
		w := store.OnHost("airflow", "a")[0]
		want := []monitor.ExecutingTask{{ID: "1", Queue: "celery", Acknowledged: true}}
		if diff := cmp.Diff(want, w.Tasks); diff != "" || w.Told != 1 || !w.ToldAt.Equal(time.Now()) {
			t.Errorf("told %d at %s, tasks (-want +got):\n%s", w.Told, w.ToldAt, diff)
		}
		if diff := cmp.Diff(want, store.Executing(broker)); diff != "" {
			t.Errorf("executing (-want +got):\n%s", diff)
		}
		online := beat("a", 7, 0, 0)
		online.State = monitor.WorkerOnline
		s.say(online)
		if w := store.OnHost("airflow", "a")[0]; w.Told != 0 || !w.ToldAt.IsZero() {
			t.Errorf("another process is remembered to have told of %d tasks at %s", w.Told, w.ToldAt)
		}
	})
}

// A heartbeat may be heard after an answer that was given later.
func TestHeartbeatKnowsBetterIfItWasSentLater(t *testing.T) {
	tests := []struct {
		rule              string
		active, processed int64
		want              int // tasks told of
	}{
		{"one that has taken nothing since was sent before", 0, 3, 1},
		{"one that has taken and finished the task was sent later", 0, 4, 0},
		{"so was one that executes it", 1, 4, 0},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			s := newSource()
			s.answers["active celery@a"] = oneTask
			runGroup(t, s, func(t *testing.T, g *workers.Group, store *workers.Store) {
				s.say(beat("a", 7, 0, 3))
				s.settle()
				s.look(t, g, "a")
				s.say(beat("a", 7, tt.active, tt.processed))
				w := store.OnHost("airflow", "a")[0]
				if busy := tt.want > 0 || tt.active > 0; w.Told != tt.want || len(w.Tasks) > 0 != busy {
					t.Errorf("told %d tasks, %v, want %d", w.Told, w.Tasks, tt.want)
				}
				time.Sleep(2 * time.Second)
				s.say(beat("a", 7, 0, 5))
				if w := store.OnHost("airflow", "a")[0]; w.Told != 0 || w.Tasks != nil {
					t.Errorf("in the end told %d tasks, %v", w.Told, w.Tasks)
				}
			})
		})
	}
}

// A heartbeat that a worker sends after its answer may be heard before it.
func TestAnswerThatAHeartbeatOvertookIsNotBelievedForLong(t *testing.T) {
	s := newSource()
	s.answers["active celery@a"] = oneTask
	runGroup(t, s, func(t *testing.T, g *workers.Group, store *workers.Store) {
		ended := beat("a", 7, 0, 4)
		s.say(ended)
		s.settle()
		s.look(t, g, "a")
		time.Sleep(ended.Frequency - time.Millisecond)
		s.say(ended)
		if w := store.OnHost("airflow", "a")[0]; w.Told != 1 || len(w.Tasks) != 1 {
			t.Errorf("a heartbeat that may be late makes it %d tasks, %v, want the one of the answer", w.Told, w.Tasks)
		}
		time.Sleep(ended.Frequency)
		s.say(ended)
		if w := store.OnHost("airflow", "a")[0]; w.Told != 0 || w.Tasks != nil {
			t.Errorf("the heartbeat after it leaves %d tasks, %v, want none", w.Told, w.Tasks)
		}
	})
}

// A worker that does not answer is waited for by those alone who ask it, once it is known
// for that.
func TestFreshLookWaitsForNobodyElse(t *testing.T) {
	s := newSource()
	s.patient = true
	s.answers["active celery@idle"] = `[]`
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		s.say(beat("idle", 7, 0, 0))
		s.say(beat("mute", 7, 0, 0))
		s.look(t, g, "mute")
		var looking sync.WaitGroup
		looking.Go(func() { s.look(t, g, "mute") })
		synctest.Wait() // it is being asked
		start := time.Now()
		if got, _ := s.look(t, g, "idle"); got != "" || time.Since(start) != 0 {
			t.Errorf("Fresh says %q after %s, want nothing and at once", got, time.Since(start))
		}
		looking.Wait()
		s.answers["active celery@mute"] = `[]`
		start = time.Now()
		if got, _ := s.look(t, g, "mute", "idle"); got != "" || time.Since(start) != 0 {
			t.Errorf("once it answers Fresh says %q after %s, want nothing and at once", got, time.Since(start))
		}
	})
}

func TestFreshLooksAtOnceShareQuestions(t *testing.T) {
	s := newSource()
	s.patient = true
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		hosts := []string{"a", "b", "c", "d"}
		for _, host := range hosts {
			s.say(beat(host, 7, 0, 0))
			s.answers["active celery@"+host] = `[]`
		}
		delete(s.answers, "active celery@a")
		var looking sync.WaitGroup
		for _, host := range hosts {
			looking.Go(func() {
				if err := g.Fresh(t.Context(), "airflow", []string{host, "d"}); (err != nil) != (host == "a") {
					t.Errorf("%s: Fresh says %v", host, err)
				}
			})
			synctest.Wait()
		}
		looking.Wait()
		asked := slices.DeleteFunc(s.takeAsked(), func(question string) bool { return !strings.HasPrefix(question, "active ") })
		want := []string{"active celery@a,celery@d", "active celery@b,celery@c,celery@d"}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	})
}

func TestFreshLookEndsWithItsContext(t *testing.T) {
	s := newSource()
	s.patient = true
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		s.say(beat("mute", 7, 0, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := g.Fresh(ctx, "airflow", []string{"mute"})
		if !errors.Is(err, workers.ErrUnanswered) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("Fresh says %v after %s, want one that has not answered after 100 ms", err, time.Since(start))
		}
	})
}

func TestFreshLookThatIsRefusedIsAnError(t *testing.T) {
	s := newSource()
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		s.settle()
		s.refusal = errors.New("no right to publish")
		err := g.Fresh(t.Context(), "airflow", []string{"a"})
		if want := "broker airflow/redis: workers are not asked by remote control: no right to publish"; err == nil || err.Error() != want || !errors.Is(err, workers.ErrNoControl) {
			t.Errorf("Fresh says %v, want %s", err, want)
		}
		s.refusal = nil
		s.answers["active celery@a"] = `[]`
		if said, _ := s.look(t, g, "a"); said != "" {
			t.Errorf("once it is allowed Fresh says %s", said)
		}
	})
}

func TestFreshLookWithoutRemoteControlLeavesItToHeartbeats(t *testing.T) {
	s := newSource()
	s.silenced = true
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		s.say(beat("a", 7, 0, 0))
		if said, asked := s.look(t, g, "a"); said != "" || asked != nil {
			t.Errorf("asked %v, Fresh says %s", asked, said)
		}
	})
}

// A look puts off no question that is asked by the way, and answers none.
func TestFreshLookLeavesTheScheduleAlone(t *testing.T) {
	for rule, answer := range map[string]string{"of one that executes": oneTask, "of one that is idle": `[]`, "of one that is mute": ""} {
		t.Run(rule, func(t *testing.T) {
			if diff := cmp.Diff(askedByTheWay(t, answer, false), askedByTheWay(t, answer, true)); diff != "" {
				t.Errorf("asked by the way without looks and with them (-without +with):\n%s", diff)
			}
		})
	}
}

// askedByTheWay lists what a worker is asked within a minute that always executes
// something else, without the questions of looks.
func askedByTheWay(t *testing.T, answer string, looking bool) []string {
	t.Helper()
	s := newSource()
	if answer != "" {
		s.answers["active celery@a"] = answer
	}
	var all []string
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		for second := range 60 {
			s.say(beat("a", 7, 1, int64(second)))
			if looking {
				s.takeAskedInto(&all)
				s.look(t, g, "a")
			}
			time.Sleep(time.Second)
			synctest.Wait()
			s.takeAskedInto(&all)
		}
	})
	return all
}

func (s *source) takeAskedInto(all *[]string) { *all = slices.Concat(*all, s.takeAsked()) }

// A broker that is gone or was changed says nothing of its workers, least that they are
// idle.
func TestFreshLookAtABrokerThatGoesIsNoZero(t *testing.T) {
	s := newSource()
	s.patient = true
	runGroup(t, s, func(t *testing.T, g *workers.Group, _ *workers.Store) {
		s.say(beat("mute", 7, 0, 0))
		var looking sync.WaitGroup
		looking.Go(func() {
			if err := g.Fresh(t.Context(), "airflow", []string{"mute"}); err == nil {
				t.Error("a worker that has not answered counts as one that has")
			}
		})
		synctest.Wait()
		g.Apply(t.Context(), nil)
		looking.Wait()
	})
}
