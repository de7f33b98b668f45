// Package leader has the replicas of celery-hpa agree on one that leads, by a Lease of
// Kubernetes (coordination.k8s.io/v1) in celery-hpa's own namespace. Only the leader
// puts targets to sleep, and renews the serving certificate.
//
// Whoever leads renews the lease every 2 s, and holds itself for the leader until 7 s
// after it began its last good renewal. The others take the lease over once they have
// seen no renewal for 10 s. Each counts by its own clock, from what it did or saw
// itself, so that clocks need not agree; 3 s lie between the end of the one and the
// beginning of the next. A leader that ends in order gives the lease back at once.
package leader
