// Package promexport shows what celery-hpa remembers of the queues, and how
// well it samples, as Prometheus metrics. A count that is not known has no
// series: in Prometheus, too, unknown is not zero.
package promexport
