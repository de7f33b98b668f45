package journal

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// The reasons of events.
const (
	scaledToZero    = "ScaledToZero"
	wokenUp         = "WokenUp"
	wakeDelayed     = "WakeDelayed"
	raisedAfterWake = "RaisedAfterWake"
	zeroRefused     = "ZeroRefused"
	zeroScaleFailed = "ZeroScaleFailed"
	zeroMistake     = "ZeroMistake"
	noBroker        = "NoBroker"
)

const (
	// repeatAfter is when what has not changed is said again.
	repeatAfter = 5 * time.Minute
	// remindAfter is when a mistake is: it stays until somebody corrects it, and an
	// API server keeps events for an hour by default (kube-apiserver, --event-ttl).
	remindAfter = 30 * time.Minute
)

// saying is what an event says.
type saying struct {
	kind, reason, message string
	// key is the same for what need not be said again before the pause is over; empty
	// for what is always said.
	key   string
	pause time.Duration
	at    time.Time // when it was said
}

func (s saying) repeats(before saying, at time.Time) bool {
	return s.key != "" && s.key == before.key && at.Sub(before.at) < s.pause
}

func normal(reason, format string, args ...any) saying {
	return saying{kind: corev1.EventTypeNormal, reason: reason, message: fmt.Sprintf(format, args...)}
}

// refusal says why a target stays. Work that has come in time is nothing to worry
// about, and how much it was changes each time: it is left out, so that the same event
// is counted. What somebody else's webhook says is told as it is.
func refusal(t target.Target, cause idle.Cause, message string) saying {
	s := saying{kind: corev1.EventTypeWarning, reason: zeroRefused, pause: repeatAfter}
	why := message
	if (cause == idle.Work || cause == idle.Busy) && !strings.HasPrefix(message, "admission webhook ") {
		s.kind = corev1.EventTypeNormal
		why = "there was work again"
	}
	s.key = zeroRefused + "/" + string(cause) + "/" + s.kind
	s.message = fmt.Sprintf("%s %s stays above zero after a look at the last moment: %s", t.Kind, t.Name, why)
	return s
}

func delay(t target.Target) saying {
	s := normal(wakeDelayed, "%s %s waits for its turn to wake up: many are due at once", t.Kind, t.Name)
	s.key, s.pause = wakeDelayed, repeatAfter
	return s
}

func failure(action idle.Action, err error) saying {
	return saying{
		kind: corev1.EventTypeWarning, reason: zeroScaleFailed, key: zeroScaleFailed + "/" + action.String(), pause: repeatAfter,
		message: fmt.Sprintf("Could not %s, trying again: %v", actionText(action), err),
	}
}

func actionText(action idle.Action) string {
	switch action {
	case idle.Sleep:
		return "scale to zero"
	case idle.Wake:
		return "wake up from zero"
	case idle.Raise:
		return "raise after a wake"
	case idle.Hold, idle.Check:
	}
	return action.String()
}

func mistake(text string) saying {
	return saying{
		kind: corev1.EventTypeWarning, reason: zeroMistake, key: zeroMistake + "/" + text, pause: remindAfter,
		message: "Does not go to zero, although it is asked for: " + text,
	}
}

func unserved(t target.Target) saying {
	return saying{
		kind: corev1.EventTypeWarning, reason: noBroker,
		message: fmt.Sprintf("There is no value of %s: no CeleryBroker serves namespace %s. Make one there, "+
			"or move the HPA and what it scales to the namespace of the broker's", strings.Join(t.Metrics, ", "), t.Namespace),
	}
}
