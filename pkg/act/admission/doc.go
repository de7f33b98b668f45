// Package admission answers the API server's questions about scaling.
//
// Victims sees that a Deployment of workers is about to lose replicas, marks the busy
// pods so that the ReplicaSet controller takes idle ones, and then lets the change
// pass, whatever happened. Zero sees that an autoscaler is about to take a target to
// zero, looks afresh, and refuses unless nothing waits and nothing runs. Notice sees
// the same of everybody else, lets it pass, and says what is still there.
//
// Package registration keeps the API server asking about our own targets only: nobody else's
// scaling is to depend on celery-hpa.
package admission
