// Package playground is a whole small installation on loopback: a control plane,
// a node whose pods are processes, Redis or RabbitMQ, celery-hpa with the rights
// that the manifests give it, and a Deployment of real Celery workers with its HPA.
// The demo shows it and the end-to-end tests judge it.
package playground
