// Package cluster tests the image, the chart and the scaling in a whole Kubernetes: Celery
// workers and Redis in containers, pods that a kubelet starts, probes and ends. It needs
// root on Linux and what "make test-cluster" builds, and is skipped otherwise.
package cluster
