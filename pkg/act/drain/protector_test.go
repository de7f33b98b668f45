package drain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/pkg/act/drain"
	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

const (
	protected = "a: celery-hpa.io/node-protection=cluster-autoscaler.kubernetes.io/safe-to-evict,karpenter.sh/do-not-disrupt" +
		" cluster-autoscaler.kubernetes.io/safe-to-evict=false karpenter.sh/do-not-disrupt=true"
	released = "a: celery-hpa.io/node-protection- cluster-autoscaler.kubernetes.io/safe-to-evict- karpenter.sh/do-not-disrupt-"
)

func wanted(protect bool) []target.Target {
	return []target.Target{{Namespace: "airflow", HPA: "worker", APIVersion: "apps/v1", Kind: "Deployment", Name: "worker", ProtectNodes: protect}}
}

// runProtector runs a protector over a world, in a bubble whose clock is the test's,
// for as long as body takes.
func runProtector(t *testing.T, w *world, body func(t *testing.T, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		p := drain.NewProtector(w, w, w, slog.New(slog.NewTextHandler(&log, nil)))
		go func() { done <- p.Run(ctx) }()
		pass(0)
		body(t, &log)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
	})
}

// pass lets time pass, and the protector have its turn at the end of it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, w *world, rule string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.take()); diff != "" {
		t.Errorf("%s: patches (-want +got):\n%s", rule, diff)
	}
}

func TestProtectionFollowsWork(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Idle})
	w.targets = wanted(true)
	runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
		expect(t, w, "an idle pod is not protected")
		pass(time.Minute)
		w.become(fleet.Busy)
		pass(time.Second)
		expect(t, w, "a busy pod is protected at once", protected)
		w.become(fleet.Idle)
		pass(29 * time.Second)
		expect(t, w, "a pod that has just been protected stays so for 30 s")
		pass(2 * time.Second)
		expect(t, w, "then it is released", released)
		w.become(fleet.Unknown)
		pass(time.Second)
		expect(t, w, "protection does not wait, and unknown is busy", protected)
		pass(time.Hour)
		expect(t, w, "nothing is written twice")
		w.become(fleet.Idle)
		pass(time.Second)
		expect(t, w, "after a long task the pod is released at once", released)
	})
}

func TestAProtectorThatHasJustStartedReleasesNobodyAtOnce(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Idle, Annotations: map[string]string{
		v1alpha1.AnnotationDoNotDisrupt: "true", v1alpha1.AnnotationNodeProtectionNote: v1alpha1.AnnotationDoNotDisrupt,
	}})
	w.targets = wanted(true)
	runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
		pass(29 * time.Second)
		expect(t, w, "it does not know since when the pod is protected")
		pass(2 * time.Second)
		expect(t, w, "30 s later it does", "a: celery-hpa.io/node-protection- karpenter.sh/do-not-disrupt-")
	})
}

func TestWhoeverOptsOutIsReleased(t *testing.T) {
	for rule, targets := range map[string][]target.Target{"the HPA opts out": wanted(false), "the HPA is gone": nil} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy})
			w.targets = wanted(true)
			runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
				pass(time.Minute)
				expect(t, w, "the pod is protected", protected)
				w.change(func() { w.targets = targets })
				pass(time.Second)
				expect(t, w, "what is ours is taken off", released)
				pass(time.Minute)
				expect(t, w, "and stays off")
			})
		})
	}
}

func TestOneOfTwoHPAsIsEnoughToOptIn(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy})
	w.targets = append(wanted(true), wanted(false)...)
	runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) { expect(t, w, "the pod is protected", protected) })
}

func TestNobodyIsTouched(t *testing.T) {
	ours := map[string]string{
		v1alpha1.AnnotationDoNotDisrupt: "true", v1alpha1.AnnotationNodeProtectionNote: v1alpha1.AnnotationDoNotDisrupt,
	}
	custom := wanted(true)
	custom[0].APIVersion, custom[0].Kind = "argoproj.io/v1alpha1", "Rollout"
	for _, tt := range []struct {
		rule   string
		member fleet.Member
		set    func(*world)
	}{
		{"of a fleet that has not opted in", fleet.Member{State: fleet.Busy}, func(w *world) { w.targets = wanted(false) }},
		{"of a fleet of which nothing is known", fleet.Member{State: fleet.Idle, Annotations: ours}, func(w *world) { w.failing = errors.New("not synced") }},
		{"of a fleet whose workers were never heard", fleet.Member{State: fleet.Unknown}, func(w *world) { w.fleet.Heard = false }},
		{"of another kind of target", fleet.Member{State: fleet.Busy}, func(w *world) { w.targets = custom }},
		{"who is being deleted", fleet.Member{State: fleet.Busy, Terminating: true}, func(*world) {}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			tt.member.Pod = "a"
			w := newWorld(tt.member)
			w.targets = wanted(true)
			tt.set(w)
			runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
				pass(time.Minute)
				expect(t, w, tt.rule)
			})
		})
	}
}

func TestWhatOthersHaveWrittenStays(t *testing.T) {
	for _, tt := range []struct {
		rule        string
		annotations map[string]string
		written     string // when the pod is busy
		removed     string // when it is idle
	}{
		{
			"one decided by the template",
			map[string]string{v1alpha1.AnnotationSafeToEvict: "false"},
			"a: celery-hpa.io/node-protection=karpenter.sh/do-not-disrupt karpenter.sh/do-not-disrupt=true",
			"a: celery-hpa.io/node-protection- karpenter.sh/do-not-disrupt-",
		},
		{
			"also if it says the contrary",
			map[string]string{v1alpha1.AnnotationDoNotDisrupt: "false"},
			"a: celery-hpa.io/node-protection=cluster-autoscaler.kubernetes.io/safe-to-evict cluster-autoscaler.kubernetes.io/safe-to-evict=false",
			"a: celery-hpa.io/node-protection- cluster-autoscaler.kubernetes.io/safe-to-evict-",
		},
		{
			"both decided by the template",
			map[string]string{v1alpha1.AnnotationSafeToEvict: "true", v1alpha1.AnnotationDoNotDisrupt: "true"},
			"", "",
		},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy, Annotations: tt.annotations})
			w.targets = wanted(true)
			runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
				pass(time.Minute)
				expect(t, w, "while it is busy", nonEmpty(tt.written)...)
				w.become(fleet.Idle)
				pass(time.Minute)
				expect(t, w, "once it is idle", nonEmpty(tt.removed)...)
				if diff := cmp.Diff(tt.annotations, w.annotations(t)); diff != "" {
					t.Errorf("in the end (-before +after):\n%s", diff)
				}
			})
		})
	}
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func TestAValueThatSomebodyHasChangedIsNoLongerOurs(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy})
	w.targets = wanted(true)
	runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
		expect(t, w, "the pod is protected", protected)
		w.change(func() { w.fleet.Members[0].Annotations[v1alpha1.AnnotationSafeToEvict] = "true" })
		pass(time.Minute)
		expect(t, w, "the note says so", "a: celery-hpa.io/node-protection=karpenter.sh/do-not-disrupt karpenter.sh/do-not-disrupt=true")
		w.become(fleet.Idle)
		pass(time.Minute)
		want := map[string]string{v1alpha1.AnnotationSafeToEvict: "true"}
		if diff := cmp.Diff(want, w.annotations(t)); diff != "" {
			t.Errorf("annotations (-want +got):\n%s", diff)
		}
	})
}

func TestProtectionComesBeforeReleaseWithinTheLimit(t *testing.T) {
	ours := map[string]string{
		v1alpha1.AnnotationDoNotDisrupt: "true", v1alpha1.AnnotationNodeProtectionNote: v1alpha1.AnnotationDoNotDisrupt,
	}
	var members []fleet.Member
	for i := range 30 {
		members = append(members,
			fleet.Member{Pod: fmt.Sprintf("idle-%d", i), State: fleet.Idle, Annotations: ours},
			fleet.Member{Pod: fmt.Sprintf("silent-%d", i), State: fleet.Idle},
			fleet.Member{Pod: fmt.Sprintf("busy-%d", i), State: fleet.Idle})
	}
	w := newWorld(members...)
	w.targets = wanted(true)
	runProtector(t, w, func(t *testing.T, _ *bytes.Buffer) {
		pass(29500 * time.Millisecond) // the idle ones are about to be released
		w.change(func() {
			for i, m := range w.fleet.Members {
				w.fleet.Members[i].State = map[string]fleet.State{"busy": fleet.Busy, "idle": fleet.Idle, "sile": fleet.Unknown}[m.Pod[:4]]
			}
		})
		var got []string // of each second
		for range 5 {
			pass(time.Second)
			kinds := map[string]int{}
			for _, patch := range w.take() {
				kinds[patch[:4]]++
			}
			got = append(got, fmt.Sprint(kinds))
		}
		want := []string{"map[busy:20]", "map[busy:10 sile:10]", "map[sile:20]", "map[idle:20]", "map[idle:10]"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("patches of each second (-want +got):\n%s", diff)
		}
	})
}

func TestAFailureIsToldOnceAndItsEndToo(t *testing.T) {
	w := newWorld(fleet.Member{Pod: "a", State: fleet.Busy})
	w.targets = wanted(true)
	w.refuse = errors.New("the API server is away")
	runProtector(t, w, func(t *testing.T, log *bytes.Buffer) {
		pass(time.Minute)
		if n := strings.Count(log.String(), "the API server is away"); n != 1 {
			t.Errorf("the failure was logged %d times, want once:\n%s", n, log)
		}
		w.change(func() { w.refuse = nil })
		pass(time.Second)
		expect(t, w, "it is tried again", protected)
		if !strings.Contains(log.String(), "again") {
			t.Errorf("the end was not logged:\n%s", log)
		}
	})
}
