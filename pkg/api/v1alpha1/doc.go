// Package v1alpha1 is version v1alpha1 of the API group celery-hpa.io: the
// CeleryBroker, which says where a Celery installation keeps its messages and
// how to read them. The package holds the types, their defaults, their
// validation and the decoding of files of them. It does no I/O.
//
// +groupName=celery-hpa.io
package v1alpha1
