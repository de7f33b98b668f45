// Package e2e proves the main road end to end: a real control plane with its real
// HPA, real Redis or RabbitMQ, real Celery workers, and celery-hpa as it is shipped, with the
// rights that the manifests give it.
package e2e
