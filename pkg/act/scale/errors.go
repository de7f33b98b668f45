package scale

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/celery-hpa/celery-hpa/pkg/act/zeroscaler"
	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// zeroWebhook is the webhook of celery-hpa itself that looks once more before a step
// to zero.
const zeroWebhook = "zero.celery-hpa.io"

// request is what the API server was asked to do.
type request struct {
	target   target.Target
	resource schema.GroupVersionResource
	verb     string
}

// explain says what an answer of the API server means.
func (s *Scales) explain(ctx context.Context, err error, r request) error {
	if refused := refusalOf(err); refused != nil {
		return refused
	}
	switch {
	case apierrors.IsConflict(err):
		return zeroscaler.ErrConflict
	case apierrors.IsNotFound(err):
		return s.notFound(ctx, r)
	case isRightMissing(err):
		return fmt.Errorf("the right to %s %s/scale of API group %q in namespace %s is missing; give it to celery-hpa by a Role and a RoleBinding: %w",
			r.verb, r.resource.Resource, r.resource.Group, r.target.Namespace, err)
	}
	return timedOut(ctx, err)
}

// notFound says what of a request was not there: a custom resource without scale is
// answered as one whose object is missing.
func (s *Scales) notFound(ctx context.Context, r request) error {
	isWatched := r.target.IsDeployment() || r.target.IsStatefulSet()
	if isWatched || s.kinds.hasScale(ctx, r.resource) {
		return missing(r.target)
	}
	return fmt.Errorf("%s, but %s have no scale subresource: it cannot be scaled", scaled(r.target), r.resource.GroupResource())
}

// scaled begins an error that is the HPA's fault.
func scaled(t target.Target) string {
	return fmt.Sprintf("HorizontalPodAutoscaler %s/%s scales %s", t.Namespace, t.HPA, t)
}

func missing(t target.Target) error { return fmt.Errorf("%s, which does not exist", scaled(t)) }

func unknownKind(t target.Target, kind schema.GroupKind) error {
	return fmt.Errorf("%s, but the cluster has no kind %s in API group %q: correct spec.scaleTargetRef, or install what defines the kind",
		scaled(t), kind.Kind, kind.Group)
}

// timedOut tells which time has run out, if one has.
func timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// denial is what the API server says where a webhook has denied
// (k8s.io/apiserver, pkg/admission/plugin/webhook/errors/statuserror.go, ToStatusErr).
// The status code is the webhook's.
func denial() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^admission webhook "([^"]+)" denied the request(?:: (.*)| without explanation)$`)
}

// refusalOf is the answer of a webhook that has not let a request pass, nil if there is
// none. That of our own is its message alone; another one's names who has refused.
func refusalOf(err error) error {
	answer, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return nil
	}
	parts := denial().FindStringSubmatch(answer.ErrStatus.Message)
	switch {
	case parts == nil:
		return nil
	case parts[1] == zeroWebhook && parts[2] != "":
		return &zeroscaler.RefusedError{Message: parts[2]}
	}
	return &zeroscaler.RefusedError{Message: answer.ErrStatus.Message}
}

// isRightMissing tells an answer of the authorizer from those of admission, which are
// Forbidden as well (k8s.io/apiserver, pkg/endpoints/handlers/responsewriters/errors.go,
// ForbiddenStatusError).
func isRightMissing(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}
