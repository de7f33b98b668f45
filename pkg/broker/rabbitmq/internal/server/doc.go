// Package server speaks AMQP 0-9-1 with a RabbitMQ server: log-in, TLS, and errors
// that say what to do.
//
// A Connection asks over a few channels how many messages wait in queues; it
// declares, binds, consumes and publishes nothing. An Inbox has a queue of its own
// for what Celery's workers say, and may send them messages; what it makes on the
// server is gone when its connection is.
package server
