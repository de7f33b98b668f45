// Package apiserver serves the external metrics API together with /metrics,
// /readyz and /livez: either as an aggregated API server, over TLS and with
// authentication and authorization delegated to the cluster, or as plain HTTP
// on loopback for trying celery-hpa without a cluster. Both serve the same
// paths with the same answers.
package apiserver
