package progress_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celery-hpa/celery-hpa/hack/progress"
)

func TestStepWritesALineEveryTenSecondsWhereThereIsNoTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		step := progress.New(&out).Start("building kube")
		time.Sleep(15 * time.Second)
		step.Detail("812 packages")
		time.Sleep(60 * time.Second)
		step.Done(nil)

		want := []string{
			"building kube: …",
			"building kube: 10.0s",
			"building kube: 20.0s 812 packages",
			"building kube: 30.0s 812 packages",
			"building kube: 40.0s 812 packages",
			"building kube: 50.0s 812 packages",
			"building kube: 1m00s 812 packages",
			"building kube: 1m10s 812 packages",
			"building kube: done in 1m15s",
		}
		if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(out.String()), "\n")); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	})
}

func TestStepSaysThatItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		step := progress.New(&out).Start("building kube")
		time.Sleep(3 * time.Second)
		if took := step.Done(errors.New("no space left")); took != 3*time.Second {
			t.Errorf("Done returned %s, want 3s", took)
		}
		if want := "building kube: failed in 3.0s\n"; !strings.HasSuffix(out.String(), want) {
			t.Errorf("output %q does not end in %q", out.String(), want)
		}
	})
}

func TestNilWriterDiscards(t *testing.T) {
	printer := progress.New(nil)
	printer.Printf("nobody reads %s", "this")
	printer.Start("nor this").Done(nil)
}
