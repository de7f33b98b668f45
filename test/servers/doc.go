// Package servers starts what celery-hpa reads, for tests: real servers and
// real Celery workers as child processes on free loopback ports. Each is stopped
// when its test ends, and dies with the test process if that is killed.
package servers
