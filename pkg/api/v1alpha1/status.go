package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ConditionReady is the type of the condition that says whether the numbers of a
// broker's queues are known.
const ConditionReady = "Ready"

// Reasons of ConditionReady.
const (
	// ReasonSampled: the broker is read, and everything about it is known.
	ReasonSampled = "Sampled"
	// ReasonIncomplete: the broker is read, but for a part that the message names. The
	// condition is True: what is known is served.
	ReasonIncomplete = "Incomplete"
	// ReasonNotSampled: the broker was not read yet.
	ReasonNotSampled = "NotSampled"
	// ReasonUnreachable: the last reading has failed, as the message says, or was not
	// permitted.
	ReasonUnreachable = "Unreachable"
	// ReasonInvalid: the spec says what cannot be.
	ReasonInvalid = "Invalid"
	// ReasonUnresolved: a Secret that the spec refers to is missing, lacks the key, or
	// holds what is of no use.
	ReasonUnresolved = "Unresolved"
	// ReasonShadowed: another broker of the namespace goes first, one of the brokers file
	// of this name or one that reads the same queues already.
	ReasonShadowed = "Shadowed"
)

// CeleryBrokerStatus is what celery-hpa has found. It is written when a condition
// changes, and for the numbers at most once in a minute: the metrics have them up to the
// second.
type CeleryBrokerStatus struct {
	// ObservedGeneration is the metadata.generation that the status is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions has one of type Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// LastSampleTime is when the broker was last read, to the minute.
	//
	// +optional
	LastSampleTime *metav1.Time `json:"lastSampleTime,omitempty"`
	// Queues is how many queues are known.
	//
	// +optional
	Queues *int64 `json:"queues,omitempty"`
	// Backlog is how many messages wait in all of them, absent while that is unknown.
	//
	// +optional
	Backlog *int64 `json:"backlog,omitempty"`
	// InFlight is how many messages workers hold and have not finished, absent while
	// that is unknown.
	//
	// +optional
	InFlight *int64 `json:"inFlight,omitempty"`
	// MissingRights says what the broker does not permit to the user of its URL, and
	// what to grant.
	//
	// +optional
	// +listType=atomic
	MissingRights []string `json:"missingRights,omitempty"`
}
