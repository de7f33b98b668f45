package admission

import (
	"fmt"
	"net/http"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// NoticePath is where Notice is to be served: what the webhook notice.celery-hpa.io of
// the chart asks.
const NoticePath = "/admission/notice"

// longestWarning is what the API server cuts a warning to, in characters
// (k8s.io/apiserver, pkg/endpoints/filters/warning.go, truncateItemRunes), where there
// are more than 4,096 of all warnings. longestName leaves room for the rest of one.
const (
	longestWarning = 256
	longestName    = 60
)

// Notice answers AdmissionReviews (admission.k8s.io/v1) of people, and of all others
// who are no autoscalers, that take a target to zero. It always allows, and warns of
// what is still there, and of what happens next. Make it with NewNotice. It is safe
// for concurrent use.
type Notice struct{ looks *Looks }

var _ http.Handler = (*Notice)(nil)

// NewNotice makes a handler for NoticePath.
func NewNotice(looks *Looks) *Notice { return &Notice{looks: looks} }

// ServeHTTP implements http.Handler. It answers within the budget of a look.
func (n *Notice) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, refused := decodeReview(w, r)
	if refused != nil {
		http.Error(w, refused.reason, refused.status)
		return
	}
	allow(w, request.UID, n.looks.review(r.Context(), noticeLabel, request).warnings())
}

// warnings say what is still there, and what will happen to a target at zero.
func (f finding) warnings() []string {
	if f.result == ignored || f.target.Name == "" {
		return nil
	}
	var texts []string
	if f.result != resultPaused {
		for _, reason := range f.shortened() {
			texts = append(texts, cut("celery-hpa: "+reason, longestWarning))
		}
	}
	return append(texts, cut("celery-hpa: "+outlook(f.target), longestWarning))
}

// outlook is what will happen to a target at zero.
func outlook(t target.Target) string {
	name, hpa := cut(t.String(), longestName), cut(t.HPA, longestName)
	switch {
	case t.Zero.Paused:
		return fmt.Sprintf("%s stays at zero: HorizontalPodAutoscaler %s is annotated %s", name, hpa, v1alpha1.AnnotationPaused)
	case t.Zero.Mistake != nil:
		return fmt.Sprintf("%s stays at zero until somebody scales it: HorizontalPodAutoscaler %s: %v", name, hpa, t.Zero.Mistake)
	}
	return fmt.Sprintf(`%s is scaled up as soon as a task waits, unless HorizontalPodAutoscaler %s is annotated %s: "true"`, name, hpa, v1alpha1.AnnotationPaused)
}
