// Package redis reads the queues of a Celery broker on Redis: backlog from the
// queue's lists, in flight from the unacked hash.
//
// # One sample, one moment
//
// A message moves from a list to the unacked hash and may move back, so lists
// and hash must be read at one moment: read one after the other, a message on
// its way is counted twice or, worse, not at all. Each sample is therefore one
// MULTI/EXEC in one exchange, however many queues there are.
//
// The price is that the server runs the transaction without a break: about
// 1.5 ms for each 1,000 queues on a busy machine, and 2 ms for each 10,000
// messages in flight. No single command takes longer than a few milliseconds.
//
// # Priorities
//
// A queue with priorities has nine more lists. Ten LLEN per queue would be
// five times as many commands as what is done instead: LLEN of the bare list and one
// EXISTS over the other nine. A queue for which EXISTS once found a list is read
// with ten LLEN from then on, and the sample in which that happens is repeated
// at once, so that no count is ever short.
//
// # In flight
//
// The unacked hash holds whole messages, of all queues: too dear to read each
// time. But a delivery tag never changes its queue. So the tags are listed each
// time (from the index, by ranges, so that no single command is long), and only
// those not seen before are fetched, decoded as far as needed, and dropped. What
// stays is the tag with its route, its ETA and its task's id.
//
// The length of the hash says whether all were found. A message that is listed
// but gone when it is fetched has been acknowledged or put back in between. The
// exchange is then repeated, once, which finds those that were put back; what is
// gone again was held for a few milliseconds and is taken for finished.
//
// Entries of other shapes, entries outside the index, and messages of an exchange
// without a matching binding are counted as unattributed: any queue may be theirs,
// so that no queue's in-flight count is then known to be zero.
//
// Messages of a named exchange are resolved through its binding table. One that
// matches several queues counts for each of them, since it may be in flight for
// any: an upper bound.
//
// With early acknowledgement a task that executes is not in the hash. Where somebody
// hears the workers and tells which tasks these are (Config.Executing), they are
// counted as well, unless the hash has a message of the same task id.
//
// # Hearing workers
//
// Workers hears their events on a connection of its own (PSUBSCRIBE), and asks them
// by remote control, which is the only thing that this package ever writes: a list
// for the replies, which expires whatever happens.
//
// # Looking out
//
// Lookout reads how much waits in a few queues, and is told by the server when one of
// them is written (CLIENT TRACKING), on two connections of its own; where the server
// does not tell, it reads alone.
//
// # Replicas
//
// A replica in step with its primary may be read. One that has lost its primary
// answers with what was true once; where the server lets us see that (ROLE), the
// sample fails.
package redis
