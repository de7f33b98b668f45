// Package management reads the list of a virtual host's queues from RabbitMQ's
// management API: which there are, and how many of their messages are ready and
// unacknowledged. It changes nothing.
package management
