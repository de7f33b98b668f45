package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/celery-hpa/celery-hpa/pkg/observe/fleet"
)

// largestReview bounds what is read of a request: twice what etcd holds of an object
// by default (1.5 MiB), since a review shows the old one and the new one.
const largestReview = 3 << 20

// reviewType is what the API server and we call a review.
func reviewType() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}
}

// refusal is an answer to what is no review: a status of HTTP with its reason, which
// shows nothing of what was sent.
type refusal struct {
	status int
	reason string
}

// decodeReview reads an AdmissionReview that asks something.
func decodeReview(w http.ResponseWriter, r *http.Request) (*admissionv1.AdmissionRequest, *refusal) {
	if r.Method != http.MethodPost {
		return nil, &refusal{http.StatusMethodNotAllowed, "send an AdmissionReview by POST"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestReview))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", largestReview)}
	}
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the request could not be read to its end"}
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil || review.TypeMeta != reviewType() || review.Request == nil {
		return nil, &refusal{http.StatusBadRequest, "the request is no AdmissionReview of " + reviewType().APIVersion + " that asks something"}
	}
	return review.Request, nil
}

// allow answers that the request may pass, with warnings for whoever made it.
func allow(w http.ResponseWriter, uid types.UID, warnings []string) {
	answer(w, &admissionv1.AdmissionResponse{UID: uid, Allowed: true, Warnings: warnings})
}

// refuse answers that the request may not pass, and why.
func refuse(w http.ResponseWriter, uid types.UID, message string) {
	answer(w, &admissionv1.AdmissionResponse{UID: uid, Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: message,
	}})
}

// answer sends a response. There is nobody to tell if it cannot be sent.
func answer(w http.ResponseWriter, response *admissionv1.AdmissionResponse) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&admissionv1.AdmissionReview{TypeMeta: reviewType(), Response: response})
}

// HPAUsers are the names of the HPA controller, which has nobody to show a warning to:
// the usual one, and that without --use-service-account-credentials.
func HPAUsers() []string {
	return []string{"system:serviceaccount:kube-system:horizontal-pod-autoscaler", "system:kube-controller-manager"}
}

// scaleDown is a request that takes replicas from a Deployment and leaves some.
type scaleDown struct {
	ref      fleet.Ref
	from, to int32
	user     string // who makes the request
	dryRun   bool
}

// scaleDownOf reads a scale-down from a request that asks for one, be it of the
// Deployment itself or of its scale. StatefulSets are none: they cannot choose.
func scaleDownOf(r *admissionv1.AdmissionRequest) (scaleDown, bool) {
	isDeployment := r.Resource.Group == "apps" && r.Resource.Resource == "deployments" &&
		(r.SubResource == "" || r.SubResource == "scale")
	if r.Operation != admissionv1.Update || !isDeployment {
		return scaleDown{}, false
	}
	from, errFrom := replicasOf(r.OldObject.Raw)
	to, errTo := replicasOf(r.Object.Raw)
	return scaleDown{
		ref:  fleet.Ref{Namespace: r.Namespace, Kind: fleet.Deployment, Name: r.Name},
		from: from, to: to,
		user:   r.UserInfo.Username,
		dryRun: isDryRun(r),
	}, errors.Join(errFrom, errTo) == nil && 0 < to && to < from
}

// replicasOf reads spec.replicas of a Scale or a Deployment. A Scale leaves zero out;
// a Deployment always has the number, since the API server has filled in what was
// missing.
func replicasOf(object []byte) (int32, error) {
	var scaled struct {
		Spec struct {
			Replicas int32 `json:"replicas"`
		} `json:"spec"`
	}
	err := json.Unmarshal(object, &scaled)
	return scaled.Spec.Replicas, err
}
