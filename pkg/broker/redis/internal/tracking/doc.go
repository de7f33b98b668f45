// Package tracking reads how much waits in queues and hears when that changes, by
// what Redis has for caches of its clients: CLIENT TRACKING.
//
// A server remembers which keys a connection has read, those included that do not
// exist, and tells at the first write to each, by whatever command, transaction or
// expiry; then it forgets the key until it is read again. It may tell for nothing: it
// forgets keys when it remembers too many (tracking-table-max-keys), and it takes keys
// of one name in several databases for one. So what is told says that it is time to
// read, and no more.
package tracking
