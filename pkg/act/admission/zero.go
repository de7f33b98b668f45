package admission

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/idle"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// ZeroPath is where Zero is to be served: what the webhook zero.celery-hpa.io of
// the chart asks.
const ZeroPath = "/admission/zero"

// mostReasons is how many things a refusal or a warning names.
const mostReasons = 3

// longestRefusal keeps a refusal short enough to fit, with what the API server and
// the HPA put before it, into an Event (k8s.io/kubernetes,
// pkg/apis/core/validation/events.go, NoteLengthLimit: 1,024 bytes).
const longestRefusal = 600

// Refusals is told of refusals; see package journal. It does no I/O that it would
// wait for.
type Refusals interface {
	Refused(t target.Target, cause idle.Cause, message string, at time.Time)
}

// Zero answers AdmissionReviews (admission.k8s.io/v1) of autoscalers that take a
// target to zero. It refuses with 403 unless a fresh look finds that nothing waits,
// runs or is held, and that nothing is unknown. Not with 409: the HPA tries again at
// once after a conflict. Make it with NewZero. It is safe for concurrent use.
//
// The API server shows no credential to a webhook. Whoever else asks learns what the
// HPA's own metrics show, and can cause looks, of which there are few at a time.
type Zero struct {
	looks    *Looks
	refusals Refusals
}

var _ http.Handler = (*Zero)(nil)

// NewZero makes a handler for ZeroPath.
func NewZero(looks *Looks, refusals Refusals) *Zero { return &Zero{looks: looks, refusals: refusals} }

// ServeHTTP implements http.Handler. It answers within the budget of a look.
func (z *Zero) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, refused := decodeReview(w, r)
	if refused != nil {
		http.Error(w, refused.reason, refused.status)
		return
	}
	f := z.looks.review(r.Context(), zeroLabel, request)
	if f.result == ignored || f.result == resultIdle {
		allow(w, request.UID, nil)
		return
	}
	reasons := cut(strings.Join(f.shortened(), "; "), longestRefusal)
	refuse(w, request.UID, "celery-hpa: not to zero: "+reasons)
	if !isDryRun(request) {
		z.report(request, f, reasons)
	}
}

// report tells of a refusal to the HPA. The zero-scaler tells itself of its own, and
// nobody else is asked about here.
func (z *Zero) report(request *admissionv1.AdmissionRequest, f finding, reasons string) {
	user := request.UserInfo.Username
	z.looks.log.Info("Refused a step to zero", "namespace", request.Namespace, "name", request.Name, "user", user, "reason", reasons)
	if f.target.Name != "" && slices.Contains(HPAUsers(), user) {
		z.refusals.Refused(f.target, f.cause, reasons, time.Now())
	}
}

// shortened are the reasons, as many as there is room for.
func (f finding) shortened() []string {
	if more := len(f.reasons) - mostReasons; more > 0 {
		return append(slices.Clone(f.reasons[:mostReasons]), fmt.Sprintf("and %d more", more))
	}
	return f.reasons
}

func pausedReason(t target.Target) string {
	return fmt.Sprintf("HorizontalPodAutoscaler %s is paused (%s)", t.HPA, v1alpha1.AnnotationPaused)
}

// cut shortens a text to that many characters, on one line: the API server drops a
// warning with a line break in it.
func cut(text string, most int) string {
	runes := []rune(strings.Join(strings.FieldsFunc(text, unicode.IsControl), "; "))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}
