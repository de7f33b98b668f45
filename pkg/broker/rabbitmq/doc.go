// Package rabbitmq reads the queues of a Celery broker on RabbitMQ.
//
// # Two sources
//
// How many messages of a queue are ready is asked over AMQP, by a passive
// declaration: its answer is of this moment for every type of queue, it needs no
// more than access to the virtual host, and it declares nothing. The questions of
// a sample are spread over the few channels of one connection.
//
// How many are unacknowledged, and which queues there are, only the management API
// knows: one request lists a virtual host. For classic queues its numbers are of
// this moment; a quorum queue tells its own once in five seconds. Each count has
// its time. A list that takes long does not hold up the backlog: it is used by a
// later sample. While the API is absent or refuses, the backlog goes on and what is
// in flight is unknown, with the right that is missing.
//
// # No message between the two
//
// The list is made before the questions are asked. A message that has left the
// ready ones in between is in flight or finished, and counts as in flight until
// the next list: so a message on its way is in one of the two numbers. While a
// backlog of a quorum queue is worked off fast, in flight is too high by what was
// finished, or purged, since the queue told its numbers; and what a worker has put
// back since counts twice. It is never too low for a message that was there then. A message that was published since, and taken at once, is not
// seen until the next list: which is why the time of an in-flight count matters to
// whoever concludes from it that a queue is idle.
//
// # Zero and no queue
//
// A queue that the broker had and has no more holds nothing. A queue that it never
// had is not known: its name or the virtual host is most likely misspelt. And a
// quorum queue without a leader answers zero to both questions: where the list says
// that a queue is not running, its counts are unknown. (Where there is no list, that
// zero cannot be told from a true one.)
package rabbitmq
