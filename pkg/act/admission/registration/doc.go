// Package registration keeps the API server asking celery-hpa about its own targets
// only: it writes which they are into the ValidatingWebhookConfiguration celery-hpa.
// Nobody else's scaling is to depend on celery-hpa.
package registration
