package scale

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

func custom() target.Target {
	return target.Target{Namespace: "airflow", APIVersion: "example.com/v1", Kind: "Widget", Name: "worker"}
}

// server answers with a size, and counts how often it is asked.
type server struct {
	replicas int32
	err      error
	asked    int
}

func (s *server) answer() (zeroscaler.Scale, error) {
	s.asked++
	return zeroscaler.Scale{Replicas: s.replicas}, s.err
}

func TestAnAnswerIsGoodForASecond(t *testing.T) {
	for _, tt := range []struct {
		rule string
		err  error
		then func(m *memory)
		wait time.Duration
		want int // requests for two readings
	}{
		{"at once", nil, func(*memory) {}, 0, 1},
		{"just before it is too old", nil, func(*memory) {}, maxAge - 1, 1},
		{"when it is too old", nil, func(*memory) {}, maxAge, 2},
		{"a failure as well", errors.New("no answer"), func(*memory) {}, maxAge - 1, 1},
		{"not after a write that has failed", nil, func(m *memory) { m.forget(custom()) }, 0, 2},
		{"of this target alone", nil, func(m *memory) {
			other := custom()
			other.Name = "other"
			m.forget(other)
		}, 0, 1},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, s := newMemory(), &server{replicas: 3, err: tt.err}
				for i := range 2 {
					got, err := m.asked(t.Context(), custom(), s.answer)
					if got.Replicas != 3 || !errors.Is(err, tt.err) {
						t.Errorf("got %+v, %v", got, err)
					}
					if i == 0 {
						tt.then(m)
						time.Sleep(tt.wait)
					}
				}
				if s.asked != tt.want {
					t.Errorf("asked %d times, want %d", s.asked, tt.want)
				}
			})
		})
	}
}

func TestACallerThatGivesUpTellsNothing(t *testing.T) {
	m, s := newMemory(), &server{err: context.Canceled}
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := m.asked(gone, custom(), s.answer); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.err = nil
	if _, err := m.asked(t.Context(), custom(), s.answer); err != nil {
		t.Errorf("the next caller got %v", err)
	}
}

func TestAnAnswerFromBeforeAWriteIsNotKept(t *testing.T) {
	for _, tt := range []struct {
		rule  string
		write func(m *memory)
		// What the reading under way and the next one return, and how often was asked.
		first, next int32
		asked       int
	}{
		{"nothing is written", func(*memory) {}, 1, 1, 1},
		{"five are written", func(m *memory) { m.written(custom(), zeroscaler.Scale{}, zeroscaler.Scale{Replicas: 5}) }, 5, 5, 1},
		{"a write fails", func(m *memory) { m.forget(custom()) }, 1, 1, 2},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			m, s := newMemory(), &server{replicas: 1}
			if _, err := m.asked(t.Context(), custom(), s.answer); err != nil {
				t.Fatal(err)
			}
			m.forget(custom())
			s.asked = 0
			first, _ := m.asked(t.Context(), custom(), func() (zeroscaler.Scale, error) {
				tt.write(m) // while the answer is on its way
				return s.answer()
			})
			next, _ := m.asked(t.Context(), custom(), s.answer)
			if first.Replicas != tt.first || next.Replicas != tt.next || s.asked != tt.asked {
				t.Errorf("got %d and then %d, asked %d times, want %d, %d and %d times", first.Replicas, next.Replicas, s.asked, tt.first, tt.next, tt.asked)
			}
		})
	}
}

func TestWhatNobodyAsksForIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMemory(), &server{}
		other := custom()
		other.Name = "other"
		for range 3 {
			_, _ = m.asked(t.Context(), other, s.answer)
			time.Sleep(forgetAfter + time.Second)
			_, _ = m.asked(t.Context(), custom(), s.answer)
			if n := len(m.readings); n != 1 {
				t.Errorf("%d targets are remembered, want 1", n)
			}
		}
	})
}
