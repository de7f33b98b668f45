// Package server asks a RabbitMQ server over AMQP 0-9-1 how many messages wait in
// its queues: log-in, TLS, one connection with a few channels, and errors that say
// what to do. It declares, binds, consumes and publishes nothing.
package server
