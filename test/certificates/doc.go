// Package certificates proves that celery-hpa is trusted without help: from nothing, while
// certificates and authorities are renewed under load, and after somebody has spoilt or
// deleted the Secret. Replicas are processes of their own behind a real API server.
package certificates
