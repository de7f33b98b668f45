// Package admission answers the API server's questions about scaling. So far there is
// one: Victims sees that a Deployment of workers is about to lose replicas, marks the
// busy pods so that the ReplicaSet controller takes idle ones, and then lets the
// change pass, whatever happened. Configuration keeps the API server asking about our
// own Deployments only: nobody else's scaling is to depend on celery-hpa.
package admission
