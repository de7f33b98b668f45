// Package admission proves what the webhooks zero and notice do to everybody's scaling,
// against a real API server that asks them as the manifests say: that an autoscaler does
// not take a target to zero while there is work, or while nobody can tell, and that
// nobody else is ever hindered, whether celery-hpa runs or not.
package admission
