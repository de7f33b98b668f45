// Package rabbitmq reads the queues of a Celery broker on RabbitMQ: see Driver. It
// hears Celery's workers and asks them by remote control: see Workers. It reads a few
// queues again and again: see Lookout.
//
// # Two sources
//
// How many messages of a queue are ready is asked over AMQP, by a passive
// declaration: its answer is of this moment for every type of queue, it needs no
// more than access to the virtual host, and it declares nothing. The questions of
// a sample are sent at once, over the few channels of one connection. A queue that
// does not answer, as while it is being mirrored, is unknown and holds up no other
// but in the sample that finds that out.
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
// back since counts twice. It is never too low for a message that was there then. A
// message that was published since, and taken at once, is not seen until the next
// list: which is why the time of an in-flight count matters to whoever concludes from
// it that a queue is idle.
//
// # What the broker has forgotten
//
// With early acknowledgement, which is Celery's default, the broker forgets a message
// as its task begins. The workers themselves know: what Config.Executing tells to
// execute, acknowledged, is in flight in addition to what the broker says. A task
// that is not acknowledged is among the broker's messages. That is asked after the
// list was made. A task that was acknowledged before the list is not in it, and one
// that is acknowledged after the asking is in the list: so none is missed that the
// workers have told of in time. One that is acknowledged between the two is in both,
// as an unacknowledged message or as one that has left the ready ones, and counts
// twice until the next list: for a moment with a classic queue, for up to five seconds
// with a quorum queue. The broker does not tell which messages it counts, so that this
// cannot be told from a task that was published, taken and acknowledged since, which
// must count. Whatever is unknown stays so.
//
// # Zero and no queue
//
// A queue that the broker had and has no more holds nothing. A queue that it never
// had is not known: its name or the virtual host is most likely misspelt. And a
// quorum queue without a leader answers zero to both questions: where the list says
// that a queue is not running, its counts are unknown. (Where there is no list, that
// zero cannot be told from a true one.)
//
// # Lookout
//
// RabbitMQ tells nobody of messages but those who take them. So a Lookout asks, often:
// a question takes 30 µs of the broker's CPU, and one about a queue that it does not
// have two lines of its log, for which reason that is seldom asked again.
//
// # Workers
//
// Workers say what they do through a topic exchange, and answer questions that come
// through a fanout exchange; a worker declares both. For what comes, Workers declares
// an exclusive queue on each of its connections, bounded in length, size and time, of
// a name that no driver takes for a queue of tasks; it is gone when the connection is.
// Replies come through the anonymous exchange, which needs no binding. It declares
// nothing else. A driver declares nothing at all.
package rabbitmq
