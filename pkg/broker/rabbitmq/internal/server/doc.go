// Package server speaks AMQP 0-9-1 with a RabbitMQ server: log-in, TLS, and errors
// that say what to do.
//
// A Connection asks how many messages wait in queues, many questions at once over a
// few channels, which the client library does not offer: the library has the
// connection, and the channels go past it (package frames). It declares, binds,
// consumes and publishes nothing. An Inbox has a queue of its own for what Celery's
// workers say, and may send them messages; what it makes on the server is gone when its
// connection is.
package server
