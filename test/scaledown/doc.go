// Package scaledown proves what celery-hpa does to pods, against a real control plane
// with the rights that the manifests give: that a scale-down takes idle pods, that
// nobody else's scaling is touched, and that node autoscalers are told truly.
package scaledown
