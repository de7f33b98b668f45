// Package rabbitmq starts rabbitmq-server for tests.
package rabbitmq
