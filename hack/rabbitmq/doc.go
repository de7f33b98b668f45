// Package rabbitmq knows how to run a real RabbitMQ as processes of whoever runs
// demo and tests: on loopback alone, with a port mapper of its own, and with all
// that it reads and writes in one folder. It starts nothing: the demo does so as
// pods, the tests as children.
package rabbitmq
