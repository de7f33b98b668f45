// Package workers hears Celery's workers and asks them by remote control, over
// inboxes on a RabbitMQ server. Errors name the rights that a user lacks.
package workers
