// Package celery reads what kombu and Celery write: broker URLs, the keys and
// values of the Redis transport, message envelopes, and binding tables. It is
// pure: no I/O, no clock, the standard library alone.
//
// Message bodies carry credentials (Airflow's hold a signed token that the task
// runs with). Nothing here keeps, returns or prints a body, and none is decoded
// unless the ETA stands in it.
//
// References to kombu are to version 5.6.2.
package celery
