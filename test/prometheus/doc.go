// Package prometheus has a real Prometheus scrape a real celery-hpa while things go well
// and wrong, and proves that every panel of the dashboard shows something, that every
// alert fires and resolves, and that the page of metrics lists them all.
package prometheus
