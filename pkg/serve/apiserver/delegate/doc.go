// Package delegate passes on to another server of external metrics what is asked for and
// is not ours. A cluster has one such server (APIService
// v1beta1.external.metrics.k8s.io); where there was one before celery-hpa, its HPAs go on
// so.
package delegate
